"""Segments grow where the card can and the user has not said otherwise."""

from __future__ import annotations

import pytest

from trainables.actors import allocator
from trainables.actors.allocator import EXPANDABLE, SETTINGS, use_expandable_segments
from trainables.measure.cuda_driver import DriverCard

ABLE, UNABLE = DriverCard("u", True), DriverCard("v", False)


@pytest.mark.parametrize(
    ("cards", "platform", "own", "set_here"),
    [
        ((ABLE,), "linux", {}, True),
        ((ABLE, ABLE), "linux", {"PATH": "/bin"}, True),
        ((), "linux", {}, False),
        ((ABLE, UNABLE), "linux", {}, False),
        ((ABLE,), "win32", {}, False),
        *[((ABLE,), "linux", {name: "max_split_size_mb:64"}, False) for name in SETTINGS],
        *[((ABLE,), "linux", {name: ""}, False) for name in SETTINGS],  # the user has said: torch's own way
    ],
)
def test_who_gets_segments_that_grow(
    monkeypatch: pytest.MonkeyPatch,
    cards: tuple[DriverCard, ...],
    platform: str,
    own: dict[str, str],
    set_here: bool,
) -> None:
    monkeypatch.setattr(allocator, "visible_cards", lambda: cards)
    monkeypatch.setattr(allocator.sys, "platform", platform)
    environment = dict(own)
    assert use_expandable_segments(environment) == set_here
    assert environment == (own | {"PYTORCH_ALLOC_CONF": EXPANDABLE} if set_here else own)
