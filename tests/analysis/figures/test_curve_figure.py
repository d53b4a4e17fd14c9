"""The training curves' rows: order, last write, cuts, and which of many trials are shown."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from analysis.figures.curve_figure import CUT, MOST_CURVES, MOST_STEPS, curve_points, curves_figure, shown_curves
from analysis.load import Study
from study.records.record import TrialRecord
from tests.support.study_directory import MakeRecord


def _curve(*pairs: tuple[int, float | None]) -> list[dict[str, Any]]:
    return [{"step": step, "train_loss": 1.0, "perplexity": value, "learning_rate": 1e-4} for step, value in pairs]


def _with(study: Study, *records: TrialRecord) -> Study:
    return replace(study, records=records)


def test_every_trial_has_its_evaluations_by_step(study: Study) -> None:
    points = curve_points(study)
    assert len(points) == 16 * 5
    assert [point["step"] for point in points[:5]] == [0, 3, 6, 9, 12]
    assert {point["trial_id"] for point in points if point["on_front"]} == {
        "t003", "t004", "t005", "t006", "t007", "t008",
    }  # fmt: skip
    assert points[0]["perplexity"] == pytest.approx(21.37)


def test_a_curve_begins_at_the_base_model_where_step_0_was_not_evaluated(study: Study, record: MakeRecord) -> None:
    once = record(0, curve=_curve((16, 8.0)))
    assert [(point["step"], point["perplexity"]) for point in curve_points(_with(study, once))] == [(0, 22.94), (16, 8)]
    unknown = record(1, curve=_curve((16, 8.0)), measurements={"base_perplexity": None})
    assert [point["step"] for point in curve_points(_with(study, unknown))] == [16]
    stopped = record(2, status="stopped", curve=_curve((4, 8.5)), measurements={"base_perplexity": None})
    both = curve_points(_with(study, once, stopped))  # another of its precision knows the base model
    assert [(one["step"], one["perplexity"]) for one in both if one["trial_id"] == "t002"] == [(0, 22.94), (4, 8.5)]


def test_a_steps_last_write_wins_and_steps_are_sorted(study: Study, record: MakeRecord) -> None:
    points = curve_points(_with(study, record(0, curve=_curve((0, 9.0), (5, 8.0), (10, 7.0), (5, 6.0)))))
    assert [(point["step"], point["perplexity"]) for point in points] == [(0, 9.0), (5, 6.0), (10, 7.0)]


def test_what_was_not_evaluated_or_is_not_finite_is_left_out(study: Study, record: MakeRecord) -> None:
    curve = [*_curve((0, 9.0), (1, None), (2, math.inf), (3, math.nan)), {"step": 4, "train_loss": 1.0}]
    assert [point["step"] for point in curve_points(_with(study, record(0, curve=curve)))] == [0]
    assert curves_figure(_with(study, record(0, curve=[]))) is None
    assert curves_figure(_with(study)) is None


def test_of_many_trials_the_fronts_come_first_then_those_that_ended_lowest() -> None:
    def rows(trial_id: str, on_front: bool, *values: float) -> list[dict[str, Any]]:
        return [{"trial_id": trial_id, "on_front": on_front, "perplexity": value} for value in values]

    points = [*rows("a", False, 1.0, 9.0), *rows("b", True, 30.0), *rows("c", False, 9.0, 5.0), *rows("d", False, 7.0)]
    assert [point["trial_id"] for point in shown_curves(points, most=3)] == ["b", "c", "c", "d"]
    assert shown_curves(points, most=4) == tuple(points)


def test_a_study_of_many_trials_shows_some_and_says_so(study: Study, record: MakeRecord) -> None:
    figure = curves_figure(_with(study, *(record(i) for i in range(MOST_CURVES + 5))))
    assert figure is not None
    assert f"{MOST_CURVES} of {MOST_CURVES + 5} trials are shown" in figure.caption
    assert len(figure.rows) == MOST_CURVES
    whole = curves_figure(study)
    assert whole is not None
    assert "trials are shown" not in whole.caption


def test_diverging_trials_do_not_flatten_the_others(study: Study, record: MakeRecord) -> None:
    calm = [record(i, curve=_curve((0, 20.0), (5, 10.0))) for i in range(3)]
    wild = record(9, status="diverged", curve=_curve((0, 20.0), (5, 1e6)))
    figure = curves_figure(_with(study, *calm, wild))
    assert figure is not None
    median = 20.0  # of 10, 10, 10, 20, 20, 20, 20, 1e6
    assert f"Values above {CUT * median:.0f} are cut off." in figure.caption
    spec = figure.chart
    domains = [layer["encoding"]["y"]["scale"].get("domain") for layer in spec["layer"]]
    assert domains == [[10.0, CUT * median]] * len(domains)
    assert [marks["mark"]["clip"] for marks in spec["layer"][0]["layer"]] == [True, True]
    tame = curves_figure(_with(study, *calm))
    assert tame is not None
    assert "cut off" not in tame.caption


def test_the_axes_say_what_they_are(study: Study) -> None:
    figure = curves_figure(study, width=500)
    assert figure is not None
    encoding = figure.chart["layer"][0]["encoding"]
    assert encoding["x"]["title"] == "Optimizer step"
    assert encoding["y"]["title"] == "Evaluation perplexity (lower is better)"


def test_the_numbers_behind_have_a_column_a_step(study: Study, record: MakeRecord) -> None:
    figure = curves_figure(
        _with(study, record(0, curve=_curve((0, 9.0), (5, 8.0))), record(1, curve=_curve((5, 7.25))))
    )
    assert figure is not None
    assert figure.headings == ("trial", "step 0", "step 5")
    assert figure.rows == (("t000", "9", "8"), ("t001", "22.94", "7.250"))


@pytest.mark.parametrize("steps", [1, MOST_STEPS, MOST_STEPS + 1, 10 * MOST_STEPS + 3])
def test_of_many_steps_the_table_keeps_some_and_the_last(study: Study, record: MakeRecord, steps: int) -> None:
    figure = curves_figure(_with(study, record(0, curve=_curve(*((step, 9.0) for step in range(steps))))))
    assert figure is not None
    assert min(steps, MOST_STEPS // 2) <= len(figure.headings) - 1 <= MOST_STEPS
    assert figure.headings[-1] == f"step {steps - 1}"
