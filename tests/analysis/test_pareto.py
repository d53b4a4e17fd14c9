"""Fronts, hypervolumes and knees of points against brute force and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import pareto
from tests.support.point_clouds import (
    SMALL,
    Point,
    clouds,
    front_by_definition,
    is_finite,
    volume_by_inclusion_exclusion,
)

# -- non-dominated rows ------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(clouds())
def test_the_front_is_what_the_definition_says(cloud: tuple[list[Point], int]) -> None:
    points, _ = cloud
    assert pareto.non_dominated(points).tolist() == front_by_definition(points)


def test_no_points_have_an_empty_front() -> None:
    for nothing in ([], np.empty((0, 2)), np.empty((0, 4))):
        assert pareto.non_dominated(nothing).tolist() == []


def test_one_point_is_the_front_unless_it_is_not_finite() -> None:
    assert pareto.non_dominated([(1.0, 2.0)]).tolist() == [True]
    for bad in (math.nan, math.inf, -math.inf):
        assert pareto.non_dominated([(1.0, bad)]).tolist() == [False]


def test_equal_rows_are_all_kept_and_ties_in_one_column_are_not() -> None:
    points = [(1, 2), (1, 2), (2, 1), (1, 3), (2, 2), (1, 2)]
    assert pareto.non_dominated(points).tolist() == [True, True, True, False, False, True]


def test_minus_infinity_does_not_dominate() -> None:
    assert pareto.non_dominated([(-math.inf, -math.inf), (3, 4), (math.nan, 0)]).tolist() == [False, True, False]


@settings(deadline=None)
@given(clouds(SMALL), st.randoms(use_true_random=False))
def test_the_front_does_not_depend_on_the_order(cloud: tuple[list[Point], int], random: object) -> None:
    points, _ = cloud
    order = list(range(len(points)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = pareto.non_dominated([points[i] for i in order]).tolist()
    assert shuffled == [pareto.non_dominated(points).tolist()[i] for i in order]


# -- hypervolume -------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(clouds(st.floats(0, 1, width=32), most=7))
def test_the_hypervolume_is_that_of_inclusion_and_exclusion(cloud: tuple[list[Point], int]) -> None:
    points, columns = cloud
    corner = (1.0,) * columns
    expected = volume_by_inclusion_exclusion(points, corner)
    assert pareto.hypervolume(points, corner) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_hypervolume_agrees_with_sampling() -> None:
    random = np.random.default_rng(0)
    points, samples = random.random((40, 3)), random.random((40_000, 3))
    share = (points[None] <= samples[:, None]).all(axis=2).any(axis=1).mean()
    assert pareto.hypervolume(points, np.ones(3)) == pytest.approx(share, abs=0.01)  # four standard errors: 4 x 0.0025


@pytest.mark.parametrize(
    ("points", "corner", "volume"),
    [
        ([], (1, 1), 0.0),
        ([(0, 0)], (2, 3), 6.0),
        ([(0, 0, 0)], (1, 2, 3), 6.0),
        ([(0, 0, 0, 0)], (1, 2, 3, 4), 24.0),
        ([(0, 1), (1, 0)], (2, 2), 3.0),
        ([(0, 1), (0, 1), (1, 0), (1, 1)], (2, 2), 3.0),  # a duplicate and a dominated point add nothing
        ([(0, 2), (2, 0), (3, -5), (-5, 2)], (2, 2), 0.0),  # not below the corner everywhere
        ([(0, 0), (math.nan, -9), (-math.inf, -9), (-9, math.inf)], (1, 1), 1.0),
        ([(-1, -1)], (0, 0), 1.0),
        ([(0, 0, 1), (0, 1, 0), (1, 0, 0)], (2, 2, 2), 7.0),
    ],
)
def test_closed_forms_of_the_hypervolume(points: list[Point], corner: Point, volume: float) -> None:
    assert pareto.hypervolume(points, corner) == pytest.approx(volume, rel=1e-12)


def test_a_staircase_has_the_volume_of_its_steps() -> None:
    n = 50  # points (i, n - 1 - i) below (n, n): columns of height i + 1
    points = [(i, n - 1 - i) for i in range(n)]
    assert pareto.hypervolume(points, (n, n)) == pytest.approx(n * (n + 1) / 2, rel=1e-12)


@settings(deadline=None)
@given(clouds(st.floats(0, 1, width=32)), st.floats(0, 1, width=32))
def test_another_point_never_makes_it_less(cloud: tuple[list[Point], int], value: float) -> None:
    points, columns = cloud
    corner = (1.0,) * columns
    more = pareto.hypervolume([*points, (value,) * columns], corner)
    assert more >= pareto.hypervolume(points, corner) - 1e-12


@pytest.mark.parametrize("corner", [(1.0, math.inf), (math.nan, 1.0), 3.0, [[1.0, 1.0]]])
def test_a_reference_must_be_finite_numbers(corner: object) -> None:
    with pytest.raises(ValueError, match="reference must be a list of finite numbers"):
        pareto.hypervolume([(0, 0)], corner)  # type: ignore[arg-type]


def test_a_reference_must_have_the_points_length() -> None:
    with pytest.raises(ValueError, match="points have 2 columns, the reference 3"):
        pareto.hypervolume([(0, 0)], (1, 1, 1))


# -- the knee ----------------------------------------------------------------------------------------------------------


def test_the_knee_is_nearest_to_the_ideal_whatever_the_units() -> None:
    points = np.array([(0, 10), (1, 2), (5, 1), (10, 0)], dtype=float)
    assert pareto.knee(points) == 1
    assert pareto.knee(points * [1e9, 1e-6] + [7, -3]) == 1


@pytest.mark.parametrize(
    ("points", "index"),
    [
        ([], None), ([(math.nan, 1)], None), ([(3, 4)], 0), ([(1, 1), (1, 1)], 0), ([(0, 5), (0, 2)], 1),
        ([(math.inf, 0), (2, 2), (1, 1)], 2), ([(0, 1), (1, 0)], 0), ([(-math.inf, -math.inf), (1, 1)], 1),
    ],
)  # fmt: skip
def test_knees_of_little(points: list[Point], index: int | None) -> None:
    assert pareto.knee(points) == index


@settings(deadline=None)
@given(clouds())
def test_the_knee_is_the_first_nearest_row_by_definition(cloud: tuple[list[Point], int]) -> None:
    points = [point if all(abs(value) < 1e100 for value in point) else (math.nan,) * len(point) for point in cloud[0]]
    finite = [i for i, point in enumerate(points) if is_finite(point)]
    index = pareto.knee(points)
    if not finite:
        assert index is None
        return
    columns = list(zip(*(points[i] for i in finite), strict=True))

    def distance(i: int) -> float:
        scaled = ((v - min(c)) / ((max(c) - min(c)) or 1) for v, c in zip(points[i], columns, strict=True))
        return math.hypot(*scaled)

    assert index in finite
    assert distance(index) <= min(map(distance, finite)) + 1e-12


# -- losses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "best", "loss"),
    [(10, 10, 0), (11, 10, 0.1), (-0.45, -0.5, 0.1), (0, 0, 0), (1, 0, math.inf), (9, 10, -0.1)],
)
def test_the_relative_loss(value: float, best: float, loss: float) -> None:
    assert pareto.relative_loss(value, best) == pytest.approx(loss)
