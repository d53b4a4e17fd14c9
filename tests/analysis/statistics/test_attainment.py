"""Attainment over seeds against brute force over all corners, and known surfaces."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.statistics.attainment import (
    attainment,
    attainment_surface,
    attainment_surfaces,
    configuration_key,
    seed_fronts,
)
from study.records.objectives import Objective
from study.records.record import TrialRecord

MakeRecord = Callable[..., TrialRecord]
Point = tuple[float, ...]
COORDINATE = st.integers(0, 4).map(float)
SETS = st.lists(st.lists(st.tuples(COORDINATE, COORDINATE), max_size=5), min_size=1, max_size=5)
SETS3 = st.lists(
    st.lists(st.tuples(COORDINATE, COORDINATE, COORDINATE), min_size=1, max_size=3), min_size=1, max_size=3
)


def brute_surface(sets: list[list[Point]], needed: int, columns: int = 2) -> list[Point]:
    """The minimal corners (any mix of coordinates) that `needed` of the sets reach."""
    axes = [sorted({point[axis] for points in sets for point in points}) for axis in range(columns)]

    def reached(goal: Point) -> bool:
        return sum(any(all(a <= b for a, b in zip(p, goal, strict=True)) for p in points) for points in sets) >= needed

    goals = [goal for goal in itertools.product(*axes) if reached(goal)]
    return sorted(
        goal
        for goal in goals
        if not any(other != goal and all(a <= b for a, b in zip(other, goal, strict=True)) for other in goals)
    )


@given(SETS, st.integers(1, 5))
def test_surface_is_brute_force(sets: list[list[Point]], needed: int) -> None:
    needed = min(needed, len(sets))
    found = attainment_surface(sets, needed / len(sets))
    assert [tuple(row) for row in found] == brute_surface(sets, needed)


@settings(max_examples=40)
@given(SETS3, st.integers(1, 3))
def test_surface_in_three_objectives_is_brute_force(sets: list[list[Point]], needed: int) -> None:
    needed = min(needed, len(sets))
    found = attainment_surface(sets, needed / len(sets))
    assert [tuple(row) for row in found] == brute_surface(sets, needed, columns=3)


@given(SETS)
def test_surfaces_are_attained_and_no_better_goal_is(sets: list[list[Point]]) -> None:
    for needed in range(1, len(sets) + 1):
        surface = attainment_surface(sets, needed / len(sets))
        if len(surface):
            assert (attainment(sets, surface) * len(sets) >= needed - 1e-9).all()
            assert (attainment(sets, surface - [0.5, 0.5]) * len(sets) < needed).all()


def test_level_0_is_the_front_of_all_and_1_the_worst_case() -> None:
    sets = [[(1.0, 4.0), (3.0, 2.0)], [(2.0, 3.0)]]
    assert attainment_surface(sets, 0.0).tolist() == [[1, 4], [2, 3], [3, 2]]
    assert attainment_surface(sets, 1.0).tolist() == [[2, 4], [3, 3]]
    assert attainment_surface(sets[:1], 1.0).tolist() == [[1, 4], [3, 2]]
    assert attainment_surface([sets[0]] * 7, 3 / 7).tolist() == [[1, 4], [3, 2]]


def test_nan_inf_and_empty_sets_reach_nothing() -> None:
    sets = [[(1.0, math.nan), (-math.inf, 0.0)], [], [(2.0, 2.0), (2.0, 2.0)]]
    assert attainment(sets, [(9.0, 9.0), (2.0, 2.0), (1.9, 9.0), (math.nan, 9.0)]) == pytest.approx(
        [1 / 3, 1 / 3, 0, 0]
    )
    assert attainment_surface(sets, 0.3).tolist() == [[2, 2]]
    assert attainment_surface(sets, 0.5).shape == (0, 2)
    assert attainment_surface([[]], 0.0).shape == (0, 2)


@pytest.mark.parametrize("level", [-0.1, 1.1, math.nan])
def test_levels_outside_are_refused(level: float) -> None:
    with pytest.raises(ValueError, match="level"):
        attainment_surface([[(1.0, 1.0)]], level)


def test_no_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one set"):
        attainment([], [(1.0, 1.0)])
    with pytest.raises(ValueError, match="one set at least"):
        attainment_surface([], 0.5)


def seeded(
    record: MakeRecord, index: int, rank: int, seed: int, perplexity: float, accuracy: float = 0.5, **changes: Any
) -> TrialRecord:
    """A record of one seed; alpha follows the rank, so ranks are configurations."""
    one = record(index, rank=rank, measurements={"perplexity": perplexity, "accuracy": accuracy}, **changes)
    return replace(one, config=replace(one.config, seed=seed))


def test_only_configurations_with_every_seed_count(record: MakeRecord, objectives: tuple[Objective, ...]) -> None:
    records = [
        seeded(record, 0, 8, 0, 12.0),
        seeded(record, 1, 8, 1, 13.0),
        seeded(record, 2, 64, 0, 5.0),  # was tried with one seed only
        seeded(record, 3, 4, 0, 14.0),
        seeded(record, 4, 4, 1, 15.0, status="failed"),
    ]
    fronts = seed_fronts(records, objectives)
    memory = records[0].measurements["peak_memory_bytes"]
    assert {seed: rows.tolist() for seed, rows in fronts.items()} == {0: [[12.0, memory]], 1: [[13.0, memory]]}
    surfaces = attainment_surfaces(records, objectives)
    assert {level: rows.tolist() for level, rows in surfaces.items()} == {
        0.0: [[12.0, memory]],
        0.5: [[12.0, memory]],
        1.0: [[13.0, memory]],
    }


def test_surfaces_stand_in_the_objectives_own_directions(record: MakeRecord) -> None:
    goals = (Objective("accuracy", "maximize", 0.0), Objective("perplexity", "minimize", 30.0))
    records = [seeded(record, seed, 8, seed, 12.0 + seed, 0.6 - 0.1 * seed) for seed in (0, 1)]
    surfaces = attainment_surfaces(records, goals, levels=(0.0, 1.0))
    assert surfaces[0.0].tolist() == [[0.6, 12.0]]
    assert surfaces[1.0].tolist() == [[0.5, 13.0]]


def test_no_complete_trial_gives_no_surface(record: MakeRecord, objectives: tuple[Objective, ...]) -> None:
    assert attainment_surfaces([], objectives) == {}
    assert attainment_surfaces([record(0, status="failed")], objectives) == {}


def test_the_key_of_a_configuration_leaves_the_seed_out(record: MakeRecord) -> None:
    one, other = seeded(record, 0, 8, 0, 12.0).config.to_dict(), seeded(record, 0, 8, 5, 12.0).config.to_dict()
    assert configuration_key(one) == configuration_key(dict(reversed(list(other.items()))))
    assert configuration_key(one) != configuration_key({**one, "rank": 9})
    assert np.unique([configuration_key(one), configuration_key(other)]).size == 1
