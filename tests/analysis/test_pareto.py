"""The front and its hypervolume against brute force and closed forms; the knee; directions; pareto.json."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import pareto
from study.records.objectives import METRICS, Objective, objective_values
from study.records.record import TrialRecord
from tests.support.study_directory import GIB, MakeRecord, made_up_records

Point = tuple[float, ...]

SMALL = st.integers(0, 4).map(float)  # few values: many ties and duplicates
WILD = st.one_of(SMALL, st.floats(allow_nan=True, allow_infinity=True), st.just(math.nan), st.just(math.inf))
COLUMNS = st.integers(2, 4)


@st.composite
def clouds(draw: st.DrawFn, values: st.SearchStrategy[float] = WILD, most: int = 14) -> tuple[list[Point], int]:
    """Points of 2 to 4 columns, none or many, with their number of columns."""
    columns = draw(COLUMNS)
    return draw(st.lists(st.tuples(*[values] * columns), max_size=most)), columns


def _dominates(one: Point, other: Point) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other


def _is_finite(point: Point) -> bool:
    return all(map(math.isfinite, point))


def _front_by_definition(points: Sequence[Point]) -> list[bool]:
    finite = [point for point in points if _is_finite(point)]
    return [_is_finite(point) and not any(_dominates(other, point) for other in finite) for point in points]


def _volume_by_inclusion_exclusion(points: Sequence[Point], corner: Point) -> float:
    """The union of the boxes from each point to the corner: the sum over all subsets of their common box, signed."""
    volume = 0.0
    for size in range(1, len(points) + 1):
        for chosen in itertools.combinations(points, size):
            sides = [c - max(column) for c, column in zip(corner, zip(*chosen, strict=True), strict=True)]
            volume -= (-1) ** size * math.prod(sides)
    return volume


# -- non-dominated rows ------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(clouds())
def test_the_front_is_what_the_definition_says(cloud: tuple[list[Point], int]) -> None:
    points, _ = cloud
    assert pareto.non_dominated(points).tolist() == _front_by_definition(points)


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
    expected = _volume_by_inclusion_exclusion(points, corner)
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
    finite = [i for i, point in enumerate(points) if _is_finite(point)]
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


# -- records and directions --------------------------------------------------------------------------------------------


@st.composite
def studies(draw: st.DrawFn) -> tuple[list[dict[str, float | None]], tuple[Objective, ...]]:
    """Measurements of some trials, and 2 to 4 objectives in both directions."""
    metrics = draw(st.lists(st.sampled_from(sorted(METRICS)), min_size=2, max_size=4, unique=True))
    directions = draw(st.lists(st.sampled_from(["minimize", "maximize"]), min_size=4, max_size=4))
    objectives = tuple(Objective(name, way, 2.0) for name, way in zip(metrics, directions, strict=False))
    values = st.one_of(SMALL, st.none(), st.just(math.nan))
    rows = draw(st.lists(st.fixed_dictionaries(dict.fromkeys(metrics, values)), max_size=8))
    return rows, objectives


def _trial(index: int, measurements: dict[str, float | None], template: TrialRecord) -> TrialRecord:
    return TrialRecord("s", f"t{index:03}", "complete", template.config, measurements=measurements)


@settings(max_examples=150, deadline=None)
@given(studies())
def test_directions_are_turned_once(
    drawn: tuple[list[dict[str, float | None]], tuple[Objective, ...]],
) -> None:
    rows, objectives = drawn
    records = [_trial(i, row, TEMPLATE) for i, row in enumerate(rows)]
    signs = [1 if objective.direction == "minimize" else -1 for objective in objectives]
    points = {
        record.trial_id: tuple(sign * value for sign, value in zip(signs, values, strict=True))
        for record in records
        if (values := objective_values(record.measurements, objectives)) is not None
    }
    kept = _front_by_definition(list(points.values()))
    expected = {trial_id for trial_id, on in zip(points, kept, strict=True) if on}
    members = pareto.front(records, objectives)
    assert {member.trial_id for member in members} == expected
    cost = pareto.cost_index(objectives)
    costs = [points[member.trial_id][cost] for member in members]
    assert costs == sorted(costs)
    document = pareto.front_document(records, objectives)
    inside = [point for point in points.values() if all(p < 2 * s for p, s in zip(point, signs, strict=True))]
    expected_volume = _volume_by_inclusion_exclusion(inside, tuple(2.0 * sign for sign in signs))
    assert document["hypervolume"] == (pytest.approx(expected_volume, abs=1e-9) if members else None)
    top = pareto.best(records, objectives)
    assert (top is None) == (not points)
    if top is not None:
        assert points[top.trial_id] == min(points.values())


TEMPLATE = made_up_records()[0]


def test_only_complete_trials_are_on_the_front(record: MakeRecord, objectives: tuple[Objective, ...]) -> None:
    excellent = {"perplexity": 1.0, "peak_memory_bytes": 1}
    others = [
        record(i, status=status, measurements=excellent)
        for i, status in enumerate(("stopped", "infeasible", "diverged", "failed"))
    ]
    assert pareto.front(others, objectives) == []
    assert pareto.best(others, objectives) is None
    assert pareto.balanced(others, objectives) is None
    assert pareto.front([*others, record(9)], objectives) == [record(9)]


def test_a_trial_without_one_objective_is_left_out(record: MakeRecord, objectives: tuple[Objective, ...]) -> None:
    incomplete = record(0, measurements={"peak_memory_bytes": None, "perplexity": 1.0})
    assert pareto.front([incomplete, record(1)], objectives) == [record(1)]


def test_the_made_up_front(objectives: tuple[Objective, ...]) -> None:
    records = made_up_records()
    ids = [member.trial_id for member in pareto.front(records, objectives)]
    assert ids == ["t004", "t008", "t006", "t005", "t007", "t003"]  # cheapest first
    best, balanced = pareto.best(records, objectives), pareto.balanced(records, objectives)
    assert best is not None
    assert best.trial_id == "t003"
    assert balanced is not None
    assert balanced.trial_id == "t007"


@pytest.mark.parametrize(
    ("metrics", "cost", "quality"),
    [
        (("perplexity", "peak_memory_bytes"), 1, 0),
        (("peak_memory_bytes", "perplexity"), 0, 1),
        (("accuracy", "perplexity"), 1, 0),
        (("peak_memory_bytes", "energy_joules"), 0, 1),
        (("perplexity", "accuracy", "seconds_per_epoch", "peak_memory_bytes"), 2, 0),
    ],
)
def test_cost_and_quality(metrics: tuple[str, ...], cost: int, quality: int) -> None:
    objectives = [Objective(metric, METRICS[metric].direction, 1.0) for metric in metrics]
    assert (pareto.cost_index(objectives), pareto.quality_index(objectives)) == (cost, quality)


# -- pareto.json -------------------------------------------------------------------------------------------------------


def test_the_front_document_keeps_its_contract(objectives: tuple[Objective, ...]) -> None:
    records = made_up_records()
    document = pareto.front_document(records, objectives)
    assert set(document) == {"objectives", "front", "hypervolume"}
    assert document["objectives"][1] == {
        "metric": "peak_memory_bytes", "direction": "minimize", "reference": 1.25 * GIB, "unit": "bytes",
    }  # fmt: skip
    assert [member["trial_id"] for member in document["front"]] == ["t004", "t008", "t006", "t005", "t007", "t003"]
    by_id = {record.trial_id: record for record in records}
    for member in document["front"]:
        record = by_id[member["trial_id"]]
        assert member["config"] == record.config.to_dict()
        assert member["perplexity"] == record.measurements["perplexity"]
        assert member["peak_memory_bytes"] == record.measurements["peak_memory_bytes"]
    json.dumps(document, allow_nan=False)


def test_equal_trials_are_all_in_the_document(record: MakeRecord, objectives: tuple[Objective, ...]) -> None:
    document = pareto.front_document([record(0), record(1)], objectives)
    assert [member["trial_id"] for member in document["front"]] == ["t000", "t001"]


def test_the_document_without_a_front(objectives: tuple[Objective, ...]) -> None:
    document = pareto.front_document([], objectives)
    assert (document["front"], document["hypervolume"]) == ([], None)


def test_a_front_beyond_the_reference_has_no_volume(record: MakeRecord) -> None:
    strict = (Objective("perplexity", "minimize", 1.0), Objective("peak_memory_bytes", "minimize", 1.0))
    document = pareto.front_document([record(0)], strict)
    assert len(document["front"]) == 1
    assert document["hypervolume"] == 0.0
