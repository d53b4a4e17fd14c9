"""What a CUDA context takes is told from other processes; cards, driver and NVML are stood in for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables.limits import MOST_CONTEXT_BYTES
from trainables.measure import context_memory as module
from trainables.measure.context_memory import MOST_GROWTH_BYTES, Opened, context_bytes, estimate, open_contexts

CARD = torch.device("cuda", 0)
MIB, GIB = 2**20, 2**30
CONTEXT = 450 * MIB

sizes = st.integers(0, 140 * GIB)
opened = st.none() | st.builds(Opened, sizes, st.integers(1, MOST_CONTEXT_BYTES - MOST_GROWTH_BYTES))


@given(st.none() | sizes, st.none() | sizes, sizes, opened)
def test_whatever_is_read_a_context_is_bounded(
    process: int | None, card: int | None, reserved: int, noted: Opened | None
) -> None:
    """16.9 GiB, another process' tensors, were once taken for a context."""
    found = estimate(process, card, reserved, noted)
    assert found is None or 0 < found <= MOST_CONTEXT_BYTES


@given(sizes, st.integers(0, 30 * GIB), st.integers(0, MOST_GROWTH_BYTES), st.integers(-60 * GIB, 60 * GIB))
def test_other_processes_that_come_and_go_change_it_by_what_a_context_may_grow_at_most(
    others: int, reserved: int, growth: int, change: int
) -> None:
    """Alone, the context's growth is seen whole; others' change is taken for growth up to 0.5 GiB, never beyond."""
    card = others + change + CONTEXT + growth + reserved
    found = estimate(None, card, reserved, Opened(others, CONTEXT))
    assert found is not None
    assert CONTEXT <= found <= CONTEXT + MOST_GROWTH_BYTES
    if change == 0:
        assert found == CONTEXT + growth
    assert estimate(CONTEXT + reserved, card, reserved, Opened(others, 1)) == CONTEXT  # NVML knows this process


def test_without_any_plausible_reading_there_is_none() -> None:
    assert estimate(None, 70 * GIB, 5 * GIB, None) is None
    assert estimate(40 * GIB, 70 * GIB, 5 * GIB, None) is None  # the number of another process
    assert estimate(None, None, 5 * GIB, Opened(0, CONTEXT)) == CONTEXT


class Card:
    """A card as NVML and torch see it: others' use, this process' context once it is touched, and what is reserved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.others, self.context, self.reserved, self.arrives = 20 * GIB, 0, 0, 0
        monkeypatch.setattr(module, "_opened", {})
        monkeypatch.setattr(module, "visible_cards", lambda: (SimpleNamespace(uuid="u"),))
        monkeypatch.setattr(module, "used_bytes_of", lambda uuid: self.used)
        monkeypatch.setattr(module, "device_used_bytes", lambda device: self.used)
        monkeypatch.setattr(module, "process_used_bytes", lambda device: None)
        monkeypatch.setattr(module, "_touch", lambda device: self.touch())
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: self.reserved)

    @property
    def used(self) -> int:
        return self.others + self.context + self.reserved

    def touch(self) -> None:
        self.context, self.reserved = CONTEXT, 2 * MIB
        self.others += self.arrives


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    return Card(monkeypatch)


def test_a_context_is_what_the_use_rises_by_while_it_is_created(card: Card) -> None:
    open_contexts([CARD])
    card.reserved = 9 * GIB
    assert context_bytes(CARD) == CONTEXT
    card.context += 100 * MIB  # kernels that were loaded since
    assert context_bytes(CARD) == CONTEXT + 100 * MIB
    card.others += 17 * GIB
    assert context_bytes(CARD) == CONTEXT
    card.others = 0
    assert context_bytes(CARD) == CONTEXT


@pytest.mark.parametrize("arrives", [17 * GIB, 2 * GIB, -GIB])
def test_a_process_that_comes_or_goes_while_it_is_created_leaves_it_unknown(card: Card, arrives: int) -> None:
    card.arrives = arrives
    open_contexts([CARD])
    assert context_bytes(CARD) is None


def test_without_a_driver_or_nvml_it_is_unknown(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "visible_cards", lambda: ())
    open_contexts([CARD])
    assert context_bytes(CARD) is None
