"""What a front is over seeds: the goals that one of them, half of them, or all of them reach.

The attainment function of a goal is the share of seeds whose front reaches it; its level sets are the attainment
surfaces (Fonseca et al. 2011, doi 10.1007/978-3-642-19893-9_8), computed by moocore. Functions over arrays minimize.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import moocore
import numpy as np
from numpy.typing import ArrayLike, NDArray

from study.records.objectives import Objective, objective_values
from study.records.record import TrialRecord

LEVELS = (0.0, 0.5, 1.0)  # reached by at least one seed, by half of them, by all

Floats = NDArray[np.float64]


def attainment(sets: Sequence[ArrayLike], goals: ArrayLike) -> Floats:
    """The share of the sets (each `n x m`-dim, minimize) that reach each of the `k x m`-dim goals, as `k`-dim.

    A set reaches a goal if one of its points is nowhere greater. Points with NaN or infinity reach nothing, an empty
    set reaches nothing, and a goal with NaN is reached by none. Raises ValueError without sets.
    """
    if not len(sets):
        raise ValueError("there must be at least one set of points; there is none. Give one for each seed.")
    wanted = np.atleast_2d(np.asarray(goals, dtype=float))
    reached = [_reaches(_finite_rows(points), wanted) for points in sets]
    return np.asarray(np.mean(reached, axis=0), dtype=np.float64)


def attainment_surface(sets: Sequence[ArrayLike], level: float) -> Floats:
    """The best goals that at least `level` of the sets reach, `k x m`-dim for m = 2 or 3, sorted; `0 x m` for none.

    At least one set counts, so level 0 is the best of all together, and 1 the worst case. A goal is on the surface if
    no other goal that so many sets reach is better. Raises ValueError for a level outside 0..1, and without sets.
    """
    if not 0 <= level <= 1 or not len(sets):
        raise ValueError(f"level must be from 0 to 1, with one set at least; it is {level!r} with {len(sets)}")
    found = [_finite_rows(points) for points in sets]
    needed = max(1, math.ceil(round(level * len(sets), 9)))
    filled = [points for points in found if len(points)]
    columns = next((points.shape[1] for points in filled), 2)
    if needed > len(filled):
        return np.empty((0, columns))  # so many sets have no points at all
    # moocore counts sets that have points; its percentile is of those.
    numbers = np.concatenate([np.full(len(points), float(index)) for index, points in enumerate(filled)])
    share = 100 * needed / len(filled)
    surface = moocore.eaf(np.concatenate(filled), numbers, percentiles=[share])[:, :-1]
    return np.asarray(surface[np.lexsort(surface.T[::-1])], dtype=np.float64)


def seed_fronts(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> dict[int, Floats]:
    """The objective values (minimized) of each seed's complete trials, by seed.

    Only configurations that were trained with every seed count: `confirm` repeats a few, and a seed that tried less
    would look worse for it. Empty where no configuration has all seeds.
    """
    points: dict[str, dict[int, tuple[float, ...]]] = defaultdict(dict)
    for record in records:
        values = objective_values(record.measurements, objectives) if record.status == "complete" else None
        if values is not None:
            minimized = tuple(one.to_minimize(value) for one, value in zip(objectives, values, strict=True))
            points[configuration_key(record.config.to_dict())][record.config.seed] = minimized
    seeds = sorted({seed for by_seed in points.values() for seed in by_seed})
    whole = [by_seed for by_seed in points.values() if len(by_seed) == len(seeds)]
    return {seed: np.asarray([by_seed[seed] for by_seed in whole], dtype=float) for seed in seeds if whole}


def attainment_surfaces(
    records: Sequence[TrialRecord], objectives: Sequence[Objective], levels: Sequence[float] = LEVELS
) -> dict[float, Floats]:
    """The attainment surface over seeds at each level, in the objectives' own directions; empty without seeds."""
    fronts = seed_fronts(records, objectives)
    if not fronts:
        return {}
    signs = np.asarray([one.to_minimize(1.0) for one in objectives])
    sets = list(fronts.values())
    return {level: np.asarray(signs * attainment_surface(sets, level), dtype=np.float64) for level in levels}


def configuration_key(config: Mapping[str, Any]) -> str:
    """What the seeds of one configuration share, as text that sorts."""
    return repr(sorted((name, value) for name, value in config.items() if name != "seed"))


def _reaches(points: Floats, goals: Floats) -> NDArray[np.bool_]:
    if not len(points):
        return np.zeros(len(goals), dtype=np.bool_)
    return np.asarray((points[:, None, :] <= goals[None, :, :]).all(axis=2).any(axis=0), dtype=np.bool_)


def _finite_rows(points: ArrayLike) -> Floats:
    rows = np.asarray(points, dtype=float)
    rows = rows.reshape(0, 2) if rows.size == 0 else np.atleast_2d(rows)
    return np.asarray(rows[np.isfinite(rows).all(axis=1)], dtype=np.float64)
