"""Ranks configurations by (loss, memory), both minimized: non-dominated ranks, hypervolume, memory strata."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

CORNER = 1.1  # the reference point of scaled points, which lie in 0..1; beyond 1, so that both ends contribute


@dataclass(frozen=True)
class Contender:
    """A configuration at a rung: its loss there and its memory, both finite."""

    key: Hashable
    loss: float
    memory: float


def by_loss(one: Contender) -> tuple[float, float, str]:
    """A key that sorts by loss, then memory."""
    return one.loss, one.memory, str(one.key)


def extremes(field: Sequence[Contender]) -> set[Hashable]:
    """The keys of the cheapest contender and of the one with the least loss; ties go to the better in the other."""
    if not field:
        return set()
    cheapest = min(field, key=lambda one: (one.memory, *by_loss(one)))
    return {cheapest.key, min(field, key=by_loss).key}


def by_rank(field: Sequence[Contender]) -> list[tuple[Contender, int]]:
    """The field with the rank of each contender, best first: by rank, then by exclusive hypervolume within the rank.

    Rank 0 is the front, rank 1 the front of what is left without it, and so on (Goldberg 1989; Deb et al. 2002, doi
    10.1109/4235.996017). Hypervolume is that of points scaled to 0..1 over the field.
    """
    ranked: list[tuple[Contender, int]] = []
    left = list(field)
    rank = 0
    while left:
        front = non_dominated(left)
        gains = dict(zip([one.key for one in front], exclusive_hypervolumes(front, field), strict=True))
        ranked += [(one, rank) for one in sorted(front, key=lambda one: (-gains[one.key], *by_loss(one)))]
        inside = {one.key for one in front}
        left = [one for one in left if one.key not in inside]
        rank += 1
    return ranked


def non_dominated(field: Sequence[Contender]) -> list[Contender]:
    """The contenders that no other dominates (no worse in both, better in one), cheapest first; equals all stay."""
    front: list[Contender] = []
    best = math.inf
    best_memory = math.inf
    for one in sorted(field, key=lambda one: (one.memory, one.loss, str(one.key))):
        if one.loss < best or (one.loss == best and one.memory == best_memory):
            front.append(one)
            best, best_memory = one.loss, one.memory
    return front


def exclusive_hypervolumes(front: Sequence[Contender], field: Sequence[Contender]) -> list[float]:
    """The hypervolume that each point of a front (cheapest first) covers alone; equal points cover none alone.

    The axes are scaled to 0..1 over the field, and the reference point is `CORNER` in both.
    """
    memory = _scaled([one.memory for one in front], [one.memory for one in field])
    loss = _scaled([one.loss for one in front], [one.loss for one in field])
    widths = [after - here for here, after in zip(memory, [*memory[1:], CORNER], strict=True)]
    heights = [before - here for here, before in zip(loss, [CORNER, *loss[:-1]], strict=True)]
    return [width * height for width, height in zip(widths, heights, strict=True)]


def memory_strata(field: Sequence[Contender], strata: int) -> list[list[Contender]]:
    """The field in at most `strata` groups of nearly equal size, cheapest first; equal memory stays in one group."""
    ordered = sorted(field, key=lambda one: one.memory)
    groups: dict[int, list[Contender]] = {}
    place: dict[float, int] = {}
    for position, one in enumerate(ordered):
        stratum = place.setdefault(one.memory, position * strata // len(ordered))
        groups.setdefault(stratum, []).append(one)
    return [groups[stratum] for stratum in sorted(groups)]


def _scaled(values: Sequence[float], over: Sequence[float]) -> list[float]:
    low, span = min(over), max(over) - min(over)
    return [(value - low) / span if span > 0 else 0.0 for value in values]
