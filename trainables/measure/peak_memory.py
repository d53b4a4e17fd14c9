"""Takes the peak memory of a stretch of work: the CUDA allocator's, or on a CPU the process' own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from trainables.measure.context_memory import context_bytes
from trainables.measure.nvml import summed
from trainables.measure.process_memory import resident_peak


@dataclass
class PeakMemory:
    """The peak within a `peak_memory` block: (allocated or resident, reserved, this process'), known after it.

    The process' is what was reserved and its CUDA context: other processes are not in it. Over several cards the sum of
    each card's own peak, which `by_card` tells apart.
    """

    bytes: tuple[int, int | None, int | None] = (0, None, None)
    by_card: tuple[int, ...] = ()


@contextmanager
def peak_memory(devices: Sequence[torch.device]) -> Iterator[PeakMemory]:
    """Takes the peak of the block: the CUDA allocator's, or on a CPU the process' resident set."""
    peak = PeakMemory()
    if devices[0].type == "cuda":
        torch.cuda.empty_cache()
        for device in devices:
            torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak.by_card = tuple(torch.cuda.max_memory_allocated(device) for device in devices)
        reserved, context = sum(map(torch.cuda.max_memory_reserved, devices)), summed(context_bytes, devices)
        peak.bytes = (sum(peak.by_card), reserved, None if context is None else reserved + int(context))
        return
    with resident_peak() as resident:
        yield peak
    peak.bytes = (resident[0], None, None)


def memory_source(devices: Sequence[torch.device]) -> str:
    """What a record's `peak_memory_bytes` means on these devices."""
    if devices[0].type != "cuda":
        return "process resident peak"
    return "cuda allocator peak" + (f", sum over {len(devices)} cards" if len(devices) > 1 else "")


class AllocatorPeak:
    """The CUDA allocator's peak since `restart`, in bytes: the sum of each card's own; a CPU has none.

    Unlike `peak_memory` it may be taken at every step: caches stay, nothing is waited for. Both use torch's one counter
    a card, so neither may be taken within the other; after one another, each reads its own stretch alone.
    """

    def __init__(self, devices: Sequence[torch.device]) -> None:
        self._cards = [device for device in devices if device.type == "cuda"]

    def restart(self) -> None:
        """Forgets what was before."""
        for card in self._cards:
            torch.cuda.reset_peak_memory_stats(card)

    def bytes(self) -> int | None:
        """The peak since then; None on a CPU."""
        return sum(map(torch.cuda.max_memory_allocated, self._cards)) if self._cards else None
