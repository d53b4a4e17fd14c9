"""Host memory for layers' blocks: what is lacking is said as a fault of the base model's place, with the remedy."""

from __future__ import annotations

import pytest
import torch

from trainables.base_model.checks.faults import BaseModelError
from trainables.base_model.streaming import host_memory
from trainables.base_model.streaming.host_memory import check_room, lock, reserve
from trainables.host_pages.pages import HostPages


def test_a_layer_must_fit_into_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory, "available_bytes", lambda: 3500)
    check_room(3500)
    with pytest.raises(BaseModelError, match="must fit there"):
        check_room(3501)


def test_what_the_system_or_the_driver_refuses_has_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BaseModelError, match=r"GiB do not: the system refuses them: .*Free host"):
        reserve(2**60)

    def refuse(pages: HostPages, cards: tuple[torch.device, ...]) -> None:
        raise MemoryError(f"{cards[0]} refuses to lock their pages, by error 2")

    pages = reserve(5000)
    monkeypatch.setattr(HostPages, "lock", refuse)
    with pytest.raises(BaseModelError, match=r"cuda:0 refuses to lock their pages, by error 2\. Free host"):
        lock(pages, torch.device("cuda", 0))
