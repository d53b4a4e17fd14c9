"""Who is best by (loss, memory), both minimized: non-dominated ranks, exclusive hypervolume, memory strata (pure)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

CORNER = 1.1  # the reference point of scaled points, which lie in 0..1; beyond 1, so that both ends contribute


@dataclass(frozen=True)
class Candidate:
    """A configuration at a rung: its loss there and its memory, both finite."""

    key: Hashable
    loss: float
    memory: float


def best_candidates(
    field: Sequence[Candidate], keep_fraction: float, strata: int, stratum_fraction: float
) -> set[Hashable]:
    """The keys of those who go on: the front, the best `keep_fraction`, both extremes, each stratum's best."""
    ranked = by_rank(field)
    kept = [one for one, rank in ranked if rank == 0]
    kept += [one for one, _ in ranked[: math.ceil(keep_fraction * len(field))]]
    for stratum in memory_strata(field, strata):
        best_first = sorted(stratum, key=_by_loss)
        kept += best_first[: math.ceil(stratum_fraction * len(stratum))]
    return {one.key for one in kept} | extremes(field)


def extremes(field: Sequence[Candidate]) -> set[Hashable]:
    """The keys of the cheapest and of the least loss; of equals, the one that is better in the other."""
    if not field:
        return set()
    cheapest = min(field, key=lambda one: (one.memory, *_by_loss(one)))
    return {cheapest.key, min(field, key=_by_loss).key}


def by_rank(field: Sequence[Candidate]) -> list[tuple[Candidate, int]]:
    """The field with each one's rank, best first: by rank, then by exclusive hypervolume within the rank.

    Rank 0 is the front, rank 1 the front of what is left without it, and so on (Goldberg 1989; Deb et al. 2002, doi
    10.1109/4235.996017). Hypervolume is that of points scaled to 0..1 over the field.
    """
    ranked: list[tuple[Candidate, int]] = []
    left = list(field)
    rank = 0
    while left:
        front = non_dominated(left)
        gains = dict(zip([one.key for one in front], exclusive_hypervolumes(front, field), strict=True))
        ranked += [(one, rank) for one in sorted(front, key=lambda one: (-gains[one.key], *_by_loss(one)))]
        inside = {one.key for one in front}
        left = [one for one in left if one.key not in inside]
        rank += 1
    return ranked


def non_dominated(field: Sequence[Candidate]) -> list[Candidate]:
    """Those whom nobody dominates (no worse in both, better in one), cheapest first; equal points stay together."""
    front: list[Candidate] = []
    best = math.inf
    best_memory = math.inf
    for one in sorted(field, key=lambda one: (one.memory, one.loss, str(one.key))):
        if one.loss < best or (one.loss == best and one.memory == best_memory):
            front.append(one)
            best, best_memory = one.loss, one.memory
    return front


def exclusive_hypervolumes(front: Sequence[Candidate], field: Sequence[Candidate]) -> list[float]:
    """What each point of a front (cheapest first) covers that no other of it does; equal points cover nothing alone.

    The axes are scaled to 0..1 over the field, and the reference point is `CORNER` in both.
    """
    memory = _scaled([one.memory for one in front], [one.memory for one in field])
    loss = _scaled([one.loss for one in front], [one.loss for one in field])
    widths = [after - here for here, after in zip(memory, [*memory[1:], CORNER], strict=True)]
    heights = [before - here for here, before in zip(loss, [CORNER, *loss[:-1]], strict=True)]
    return [width * height for width, height in zip(widths, heights, strict=True)]


def memory_strata(field: Sequence[Candidate], strata: int) -> list[list[Candidate]]:
    """The field in at most `strata` groups of nearly equal size, cheapest first; equal memory is never parted."""
    ordered = sorted(field, key=lambda one: one.memory)
    groups: dict[int, list[Candidate]] = {}
    place: dict[float, int] = {}
    for position, one in enumerate(ordered):
        stratum = place.setdefault(one.memory, position * strata // len(ordered))
        groups.setdefault(stratum, []).append(one)
    return [groups[stratum] for stratum in sorted(groups)]


def _scaled(values: Sequence[float], over: Sequence[float]) -> list[float]:
    low, span = min(over), max(over) - min(over)
    return [(value - low) / span if span > 0 else 0.0 for value in values]


def _by_loss(one: Candidate) -> tuple[float, float, str]:
    return one.loss, one.memory, str(one.key)
