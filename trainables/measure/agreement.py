"""Takes timings until they agree: as many as a stated confidence needs, and no more."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import TypeVar

AGREEMENT = 0.1  # two timings agree that differ by no more of the larger one
MEDIAN_WITHIN = 0.05  # of itself, to either side, at most, with a doubt of at most
MOST_DOUBT = 0.075

Timed = TypeVar("Timed")


def agree(one: float, other: float) -> bool:
    """Whether two timings of the same work are alike enough for either to stand for both: to within 10 %."""
    return abs(one - other) <= AGREEMENT * max(one, other)


def until_agreed(
    first: Timed, take: Callable[[], Timed], seconds: Callable[[Timed], float], patience_seconds: float
) -> tuple[Timed, ...]:
    """Repeats a timing until two in a row agree, and returns these two; `first` was taken before.

    At least one more is taken. Where those after the first have lasted for `patience_seconds` and the last two do not
    agree, the last one is returned alone: what it is compared with was less warm, or another process disturbed it.
    """
    before, last = first, take()
    spent = seconds(last)
    while not agree(seconds(before), seconds(last)):
        if spent >= patience_seconds:
            return (last,)
        before, last = last, take()
        spent += seconds(last)
    return before, last


def median_is_sure(timings: Sequence[float]) -> bool:
    """Whether the median is known to within 5 %, with a confidence of 92 %; fewer than five timings never tell.

    The interval between the k-th smallest and the k-th largest of n timings holds the median of their distribution,
    whatever that is, but for the chance that fewer than k of n coins show heads, or tails (the sign test's interval).
    """
    outer = _sure_from_place(len(timings))
    if outer < 0:
        return False
    ordered = sorted(timings)
    return ordered[-1 - outer] - ordered[outer] <= 2 * MEDIAN_WITHIN * statistics.median(ordered)


def _sure_from_place(count: int) -> int:
    """The innermost place, from either end, of the interval that is confident enough; negative where none is."""
    place, doubt = -1, 0.0
    while place < count and doubt <= MOST_DOUBT:
        place += 1
        doubt += 2 * math.comb(count, place) / 2**count
    return place - 1
