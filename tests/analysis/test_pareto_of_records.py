"""The front of a study's records: directions, the best and the balanced, and pareto.json."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis import pareto
from study.records.objectives import METRICS, Objective, objective_values
from study.records.record import TrialRecord
from tests.support.point_clouds import SMALL, front_by_definition, volume_by_inclusion_exclusion
from tests.support.study_directory import GIB, MakeRecord, made_up_records


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
    kept = front_by_definition(list(points.values()))
    expected = {trial_id for trial_id, on in zip(points, kept, strict=True) if on}
    members = pareto.front(records, objectives)
    assert {member.trial_id for member in members} == expected
    cost = pareto.cost_index(objectives)
    costs = [points[member.trial_id][cost] for member in members]
    assert costs == sorted(costs)
    document = pareto.front_document(records, objectives)
    inside = [point for point in points.values() if all(p < 2 * s for p, s in zip(point, signs, strict=True))]
    expected_volume = volume_by_inclusion_exclusion(inside, tuple(2.0 * sign for sign in signs))
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
