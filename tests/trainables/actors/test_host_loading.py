"""A host's base model is loaded as its settings say: what waits in host memory, and on which cards."""

from __future__ import annotations

from typing import Any

import pytest

from trainables.actors import host_loading
from trainables.actors.host_loading import HostSettings, make_engine
from trainables.base_model import load
from trainables.memory.offload import Offload
from trainables.settings import BaseModelSettings, HardwareSettings


class LoadedError(Exception):
    """The load was asked for; the engine is another test's matter."""


class Trial:
    """What a load reads of a trial's settings."""

    base_model = BaseModelSettings("any")
    hardware = HardwareSettings()


@pytest.mark.parametrize("cards", [1, 2])
def test_the_load_is_told_what_waits_in_host_memory(cards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}

    def load_base_model(*arguments: Any, **named: Any) -> None:
        told.update(named)
        raise LoadedError

    monkeypatch.setattr(load, "load_base_model", load_base_model)
    monkeypatch.setattr(host_loading, "cards_by_module", lambda settings: {"": settings.cards})
    offload = Offload(layers=3, embedding=True)
    settings = HostSettings(Trial(), "a host", "nf4", "cpu", 1, cards=cards, offload=offload)  # type: ignore[arg-type]
    with pytest.raises(LoadedError):
        make_engine(settings)
    assert told["offload"] == offload
    assert told["cards"] == (None if cards == 1 else {"": 2})
