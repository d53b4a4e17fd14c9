"""Peaks: of the process on a CPU, and of an allocator that is made up where a card would be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables.measure import peak_memory as module
from trainables.measure.nvml import device_energy_joules, device_used_bytes
from trainables.measure.peak_memory import AllocatorPeak, memory_source, peak_memory

CPU = torch.device("cpu")
CARDS = (torch.device("cuda", 0), torch.device("cuda", 1))
MIB = 2**20


def test_the_peak_on_a_cpu_is_the_processs() -> None:
    """64 MiB within 4 MiB; nothing else is known of a CPU."""
    with peak_memory([CPU]) as nothing:
        pass
    with peak_memory([CPU]) as something:
        torch.ones(64 * MIB // 4).sum()
    assert something.bytes[0] - nothing.bytes[0] == pytest.approx(64 * MIB, abs=4 * MIB)
    assert something.bytes[1:] == (None, None)


def test_what_only_a_card_has_is_none_on_a_cpu() -> None:
    assert device_used_bytes(CPU) is None
    assert device_energy_joules(CPU) is None
    assert AllocatorPeak([CPU]).bytes() is None
    AllocatorPeak([CPU]).restart()  # asks no card, where there is none


@pytest.mark.parametrize(
    ("devices", "source"),
    [
        ([CPU], "process resident peak"),
        (CARDS[:1], "cuda allocator peak"),
        (CARDS, "cuda allocator peak, sum over 2 cards"),
    ],
)
def test_a_record_says_what_its_peak_is_of(devices: list[torch.device], source: str) -> None:
    assert memory_source(devices) == source


class Allocator:
    """A caching allocator as torch counts it: what is allocated on each card, and the most since the last reset."""

    def __init__(self, patch: Callable[[str, object], None]) -> None:
        self._now: defaultdict[torch.device, int] = defaultdict(int)
        self._peak: defaultdict[torch.device, int] = defaultdict(int)
        patch("empty_cache", lambda: None)
        patch("reset_peak_memory_stats", self._reset)
        patch("max_memory_allocated", lambda card: self._peak[card])
        patch("max_memory_reserved", lambda card: 2 * self._peak[card])

    def allocate(self, card: torch.device, size: int) -> None:
        """Takes so many bytes; a negative number frees them."""
        self._now[card] += size
        self._peak[card] = max(self._peak[card], self._now[card])

    def spike(self, card: torch.device, size: int) -> None:
        """Takes bytes and frees them, as a step does."""
        self.allocate(card, size)
        self.allocate(card, -size)

    def _reset(self, card: torch.device) -> None:
        self._peak[card] = self._now[card]


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> Allocator:
    monkeypatch.setattr(module, "context_bytes", lambda device: 1000)
    return Allocator(lambda name, stand_in: monkeypatch.setattr(torch.cuda, name, stand_in))


def test_the_peak_over_cards_is_the_sum_of_each_ones_own(allocator: Allocator) -> None:
    allocator.allocate(CARDS[0], 10)
    with peak_memory(CARDS) as peak:
        allocator.spike(CARDS[0], 5)
        allocator.spike(CARDS[1], 7)
    assert peak.by_card == (15, 7)
    assert peak.bytes == (22, 44, 44 + 2000)


stretches = st.lists(st.tuples(st.booleans(), st.lists(st.tuples(st.integers(0, 1), st.integers(0, 50)))), max_size=8)


@given(stretches)
def test_a_step_and_a_measurement_each_read_their_own_stretch(done: list[tuple[bool, list[tuple[int, int]]]]) -> None:
    """Steps of packs and measurements alone by turns, over 100 bytes of base: neither disturbs the other's peak."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "context_bytes", lambda device: None)
        allocator = Allocator(lambda name, stand_in: patch.setattr(torch.cuda, name, stand_in))
        for card in CARDS:
            allocator.allocate(card, 100)
        steps = AllocatorPeak(CARDS)
        for alone, spikes in done:
            own = sum(100 + max((size for card, size in spikes if card == number), default=0) for number in range(2))
            if alone:
                with peak_memory(CARDS) as peak:
                    for number, size in spikes:
                        allocator.spike(CARDS[number], size)
                assert peak.bytes == (own, 2 * own, None)
            else:
                steps.restart()
                for number, size in spikes:
                    allocator.spike(CARDS[number], size)
                assert steps.bytes() == own
