"""The front figure's rows: what is on the front, on the line, within reach, infeasible."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from analysis.figures.front_figure import LABELLED, front_figure
from analysis.figures.front_rows import budget_line, front_axes, front_points, infeasible_points, memory_edge
from analysis.figures.parts import REACH
from analysis.load import Study
from study.records.objectives import METRICS, Objective
from study.records.record import TrialRecord
from tests.support.study_directory import GIB, MakeRecord

SPEED_AND_QUALITY = (Objective("train_tokens_per_second", "maximize", 1.0), Objective("perplexity", "minimize", 30.0))
THREE = (
    Objective("perplexity", "minimize", 30.0),
    Objective("peak_memory_bytes", "minimize", 2.0 * GIB),
    Objective("train_tokens_per_second", "maximize", 100.0),
)


def _infeasible(record: MakeRecord, index: int, asked: float | None, room: float | None = 1.4 * GIB) -> TrialRecord:
    sizes = {"requested_bytes": asked, "available_bytes": room}
    return record(index, status="infeasible", infeasible={"moment": "training", "source": "observed", **sizes})


def _layers(study: Study) -> list[dict[str, Any]]:
    figure = front_figure(study, width=700)
    assert figure is not None
    return [{**layer, "rows": layer["data"]["values"]} for layer in figure.chart["layer"]]


def _marks(study: Study, kind: str) -> list[dict[str, Any]]:
    return [layer for layer in _layers(study) if layer["mark"]["type"] == kind]


# -- points ------------------------------------------------------------------------------------------------------------


def test_points_are_complete_trials_in_display_units(study: Study) -> None:
    points = front_points(study)
    assert [point["trial_id"] for point in points] == [f"t{i:03}" for i in range(11)]
    for point, record in zip(points, study.records, strict=False):
        assert point["x"] == record.measurements["peak_memory_bytes"] / GIB
        assert point["y"] == record.measurements["perplexity"]
    front = {point["trial_id"] for point in points if point["on_front"]}
    assert front == {"t003", "t004", "t005", "t006", "t007", "t008"}
    assert points[3]["shown_peak_memory_bytes"] == "1.32 GiB"


def test_with_a_third_objective_the_front_is_wider_than_the_line(study: Study) -> None:
    points = front_points(replace(study, objectives=THREE))
    on_front = {point["trial_id"] for point in points if point["on_front"]}
    on_line = {point["trial_id"] for point in points if point["on_line"]}
    assert on_line < on_front
    figure = front_figure(replace(study, objectives=THREE))
    assert figure is not None
    assert "also decided by what is not shown here: training speed." in figure.caption


def test_trials_without_a_shown_value_are_left_out(study: Study, record: MakeRecord) -> None:
    odd = [record(0, measurements={"perplexity": None}), record(1, measurements={"peak_memory_bytes": math.inf})]
    assert front_points(replace(study, records=tuple(odd))) == ()
    assert front_figure(replace(study, records=tuple(odd))) is None


@pytest.mark.parametrize(
    ("metrics", "across", "upward"),
    [
        (("perplexity", "peak_memory_bytes"), "peak_memory_bytes", "perplexity"),
        (("seconds_per_epoch", "accuracy", "perplexity"), "seconds_per_epoch", "accuracy"),
        (("peak_memory_bytes", "energy_joules"), "peak_memory_bytes", "energy_joules"),
    ],
)
def test_a_cost_lies_across_and_a_quality_upward(metrics: tuple[str, ...], across: str, upward: str) -> None:
    objectives = [Objective(metric, METRICS[metric].direction, 1.0) for metric in metrics]
    assert tuple(objective.metric for objective in front_axes(objectives)) == (across, upward)


# -- budget and memory limit -------------------------------------------------------------------------------------------


def test_the_budget_line_stands_at_the_reference(study: Study) -> None:
    assert budget_line(study, front_points(study)) == {"x": 1.25, "label": "budget 1.25 GiB"}


def test_a_budget_out_of_reach_is_left_out(study: Study) -> None:
    points = front_points(study)
    greatest = max(point["x"] for point in points)
    assert budget_line(replace(study, memory_limit=REACH * greatest * GIB * 0.999), points)
    assert budget_line(replace(study, memory_limit=REACH * greatest * GIB * 1.001), points) is None
    assert budget_line(study, ()) is None
    far = front_figure(replace(study, memory_limit=24.0 * GIB))
    near = front_figure(study)
    assert far is not None
    assert near is not None
    assert "The budget, 24.00 GiB, would lie further right." in far.caption
    assert "would lie further right" not in near.caption


def test_infeasible_trials_stand_where_they_asked_memory(study: Study) -> None:
    (row,) = infeasible_points(study)
    assert row["trial_id"] == "t013"
    assert row["x"] == pytest.approx(2.15)
    assert (row["asked"], row["moment"], row["source"]) == ("2.15 GiB", "loss", "predicted")


def test_infeasible_trials_need_bytes_and_memory_across(study: Study, record: MakeRecord) -> None:
    unknown = replace(study, records=(record(0), _infeasible(record, 1, None), _infeasible(record, 2, math.inf)))
    assert infeasible_points(unknown) == ()
    assert infeasible_points(replace(study, objectives=SPEED_AND_QUALITY)) == ()
    assert memory_edge(replace(study, objectives=SPEED_AND_QUALITY), front_points(study)) is None


def test_the_edge_is_the_limit_or_the_least_room_found(study: Study, record: MakeRecord) -> None:
    points = front_points(study)
    assert memory_edge(study, points) == {"x": pytest.approx(1.4), "label": "memory limit 1.40 GiB"}
    more = replace(study, records=(*study.records, _infeasible(record, 20, 3 * GIB, room=1.2 * GIB)))
    assert memory_edge(more, points) == {"x": pytest.approx(1.2), "label": "memory limit 1.20 GiB"}
    assert memory_edge(replace(more, memory_limit=2.0 * GIB), points) == {"x": 2.0, "label": "memory limit 2.00 GiB"}
    nowhere = replace(study, records=(record(0), _infeasible(record, 1, 2 * GIB, room=None)))
    assert memory_edge(nowhere, points) is None


def test_without_infeasible_trials_nothing_is_shaded(study: Study, record: MakeRecord) -> None:
    plain = replace(study, records=(record(0), record(1, rank=64)), memory_limit=1.0 * GIB)
    assert memory_edge(plain, front_points(plain)) is None
    assert _marks(plain, "rect") == []
    figure = front_figure(plain)
    assert figure is not None
    assert "did not fit" not in figure.caption


# -- the chart ---------------------------------------------------------------------------------------------------------


def test_the_region_beyond_the_limit_is_shaded_with_crosses_in_it(study: Study) -> None:
    (shade,) = _marks(study, "rect")
    assert shade["rows"][0]["x"] == pytest.approx(1.4)
    assert shade["encoding"]["x2"] == {"value": "width"}
    crosses = [layer for layer in _marks(study, "text") if layer["mark"].get("text") == "✕"]
    assert [row["trial_id"] for row in crosses[0]["rows"]] == ["t013"]
    assert crosses[0]["encoding"]["y"] == {"value": "height"}
    figure = front_figure(study)
    assert figure is not None
    assert "1 trial did not fit: ✕ at the bottom, at the memory asked for." in figure.caption


def test_a_far_infeasible_trial_is_counted_instead_of_squeezing_the_points(study: Study, record: MakeRecord) -> None:
    far = replace(study, records=(*study.records, _infeasible(record, 20, 40 * GIB)))
    crosses = [layer for layer in _marks(far, "text") if layer["mark"].get("text") == "✕"]
    assert [row["trial_id"] for row in crosses[0]["rows"]] == ["t013"]
    figure = front_figure(far)
    assert figure is not None
    assert "1 trial did not fit and would lie further right, up to 40.00 GiB." in figure.caption


def test_limit_and_budget_at_one_place_are_one_line(study: Study) -> None:
    layers = _marks(replace(study, memory_limit=1.25 * GIB), "text")
    labels = {row.get("label") for layer in layers for row in layer["rows"]}
    assert "memory limit 1.25 GiB" in labels
    assert "budget 1.25 GiB" not in labels


def test_the_step_line_buys_what_is_affordable(study: Study) -> None:
    (line,) = _marks(study, "line")
    assert line["mark"]["interpolate"] == "step-after"
    xs = [row["x"] for row in line["rows"]]
    assert xs == sorted(xs)
    speed = replace(study, objectives=(SPEED_AND_QUALITY[1], SPEED_AND_QUALITY[0]))
    assert _marks(speed, "line")[0]["mark"]["interpolate"] == "step-before"


def test_front_members_are_drawn_last_and_filled(study: Study) -> None:
    (marks,) = _marks(study, "point")
    on_front = [row["on_front"] for row in marks["rows"]]
    assert on_front == sorted(on_front)
    assert marks["encoding"]["fillOpacity"] == {"condition": {"test": "datum.on_front", "value": 1}, "value": 0}


def test_labels_stand_on_the_better_side_of_the_front(study: Study) -> None:
    labels = [layer["mark"] for layer in _marks(study, "text") if abs(layer["mark"].get("dx", 0)) == 8]
    assert [(mark["align"], mark["baseline"]) for mark in labels] == [("right", "top")]
    objectives = (Objective("accuracy", "maximize", 0.1), SPEED_AND_QUALITY[0])
    flipped = [layer["mark"] for layer in _marks(replace(study, objectives=objectives), "text")]
    assert ("left", "bottom", 8) in [(mark["align"], mark["baseline"], mark["dx"]) for mark in flipped]


def test_many_members_go_without_labels(study: Study, record: MakeRecord) -> None:
    def with_members(count: int) -> Study:
        chain = ({"perplexity": 20.0 - i, "peak_memory_bytes": (1 + i / 50) * GIB} for i in range(count))
        return replace(study, records=tuple(record(i, measurements=values) for i, values in enumerate(chain)))

    def labels(study: Study) -> int:
        texts = [layer for layer in _marks(study, "text") if layer["mark"].get("dx") == -8]
        return sum(len(layer["rows"]) for layer in texts)

    assert labels(with_members(LABELLED)) == LABELLED
    assert labels(with_members(LABELLED + 1)) == 0


def test_the_numbers_behind_are_all_trials_with_all_objectives(study: Study) -> None:
    figure = front_figure(replace(study, objectives=THREE))
    assert figure is not None
    assert figure.headings == ("trial", "configuration", "Perplexity", "Peak memory", "Training speed", "on the front")
    assert len(figure.rows) == 11
    assert list(dict.fromkeys(row[-1] for row in figure.rows)) == ["yes", "no"]  # the front's first
    assert figure.rows[[row[0] for row in figure.rows].index("t003")] == (
        "t003", "bf16, rank 64, all_linear, learning rate 2e-4", "12.52", "1.32 GiB", "3,111", "yes",
    )  # fmt: skip
    assert figure.title == "Perplexity against peak memory"
