"""Ranks, hypervolumes and strata against brute force."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.search.front_ranking import Contender, by_rank, exclusive_hypervolumes, memory_strata, non_dominated
from tests.support.search.contenders import FIELDS, brute_rank


def area(points: list[tuple[float, float]], corner: float) -> float:
    """The area that points cover below a corner, by counting the cells of their grid."""
    xs, ys = (sorted({*(point[axis] for point in points), corner}) for axis in (0, 1))
    return sum(
        (x2 - x1) * (y2 - y1)
        for x1, x2 in itertools.pairwise(xs)
        for y1, y2 in itertools.pairwise(ys)
        if any(x <= x1 and y <= y1 for x, y in points)
    )


@given(FIELDS)
def test_ranks_are_brute_force(field: list[Contender]) -> None:
    ranked = by_rank(field)
    assert sorted(one.key for one, _ in ranked) == sorted(one.key for one in field)
    assert all(rank == brute_rank(one, field) for one, rank in ranked)
    assert [rank for _, rank in ranked] == sorted(rank for _, rank in ranked)
    assert {one.key for one in non_dominated(field)} == {one.key for one in field if brute_rank(one, field) == 0}


@settings(max_examples=50)
@given(FIELDS)
def test_exclusive_hypervolume_is_what_is_lost_without_the_point(field: list[Contender]) -> None:
    front = non_dominated(field)
    low = [min(one.loss for one in field), min(one.memory for one in field)]
    span = [max(one.loss for one in field) - low[0] or 1.0, max(one.memory for one in field) - low[1] or 1.0]
    points = [((one.loss - low[0]) / span[0], (one.memory - low[1]) / span[1]) for one in front]
    for index, gain in enumerate(exclusive_hypervolumes(front, field)):
        without = points[:index] + points[index + 1 :]
        lost = area(points, 1.1) - (area(without, 1.1) if without else 0.0)
        assert gain == pytest.approx(lost, abs=1e-9)


@given(FIELDS)
def test_within_a_rank_more_hypervolume_comes_first(field: list[Contender]) -> None:
    ranked = by_rank(field)
    for rank in {rank for _, rank in ranked}:
        order = [one for one, of in ranked if of == rank]
        front = sorted(order, key=lambda one: (one.memory, one.loss, str(one.key)))
        gains = dict(zip([one.key for one in front], exclusive_hypervolumes(front, field), strict=True))
        assert [gains[one.key] for one in order] == sorted(gains.values(), reverse=True)


@given(FIELDS, st.integers(1, 5))
def test_strata_are_by_memory_and_of_like_size_and_equals_stay_together(field: list[Contender], count: int) -> None:
    strata = memory_strata(field, count)
    assert sorted(one.key for stratum in strata for one in stratum) == sorted(one.key for one in field)
    assert len(strata) <= count
    for below, above in itertools.pairwise(strata):
        assert max(one.memory for one in below) < min(one.memory for one in above)
    if len({one.memory for one in field}) == len(field):
        sizes = [len(stratum) for stratum in strata]
        assert max(sizes) - min(sizes) <= 1
