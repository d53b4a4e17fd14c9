"""Chooses the offload that trials of a phase share: the mildest, or another where larger packs make it faster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from study.plan.offloading.ladder import Permitted
from trainables.memory.offload import RESIDENT, STREAM_BUFFERS, Offload

LEAST_GAIN = 0.1  # of the time, for which more is moved to host memory than must be: times are predicted

Way = TypeVar("Way")


@dataclass(frozen=True)
class Chosen(Generic[Way]):
    """A way to run trials, and how many times as long the mildest would take; None where this is the mildest."""

    way: Way
    gain: float | None = None


def rivals(permitted: Permitted) -> Iterator[Offload]:
    """What else may wait so that packs are larger: other parts, and with each of these half of the layers, or all.

    No more layers than have buffers give no room: they wait only where they must.
    """
    if not permitted.fewest:
        yield from (one for one in permitted.beside(RESIDENT) if not one.is_none)
    for layers in dict.fromkeys((max(permitted.fewest, permitted.most // 2), permitted.most)):
        if layers > STREAM_BUFFERS or permitted.fewest:
            yield from permitted.beside(Offload(layers))


def choose(mildest: Way, others: Iterable[Way], seconds: Callable[[Way], float | None]) -> Chosen[Way]:
    """The mildest way, unless another takes at least a tenth less time: then the fastest, the first of equals."""
    usual = seconds(mildest)
    if not usual:
        return Chosen(mildest)
    times = [(time, way) for way in others if (time := seconds(way)) is not None]
    fastest = min(times, key=lambda one: one[0], default=None)
    if fastest is None or fastest[0] > (1 - LEAST_GAIN) * usual:
        return Chosen(mildest)
    return Chosen(fastest[1], usual / fastest[0])
