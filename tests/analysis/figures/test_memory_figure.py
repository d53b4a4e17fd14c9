"""Predicted against measured memory: one row a footprint, errors with their sign."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from analysis.figures.memory_figure import memory_figure, memory_points
from analysis.figures.parts import MOST_NUMBERS
from analysis.load import Study
from study.records.record import TrialRecord
from tests.support.study_directory import GIB, MakeRecord


def _with(study: Study, *records: TrialRecord) -> Study:
    return replace(study, records=records)


def _sizes(predicted: float | None, measured: float | None) -> dict[str, Any]:
    return {"predictions": {"peak_memory_bytes": predicted}, "measurements": {"peak_memory_bytes": measured}}


def test_a_row_has_both_in_gib_and_the_error(study: Study, record: MakeRecord) -> None:
    (point,) = memory_points(_with(study, record(0, **_sizes(1.9 * GIB, 2 * GIB))))
    assert (point["predicted"], point["measured"]) == (pytest.approx(1.9), 2.0)
    assert point["error"] == pytest.approx(-0.05)
    assert (point["precision"], point["rank"], point["target_modules"], point["trials"]) == ("nf4", 8, "q_v", 1)


def test_trials_of_one_footprint_share_a_row(study: Study, record: MakeRecord) -> None:
    same = [record(i, rate=rate, **_sizes(GIB, GIB)) for i, rate in enumerate((1e-4, 2e-4, 3e-4))]
    points = memory_points(
        _with(study, *same, record(8, rank=16, **_sizes(GIB, GIB)), record(9, **_sizes(GIB, 2 * GIB)))
    )
    assert [(point["rank"], point["measured"], point["trials"]) for point in points] == [
        (8, 1, 3),
        (16, 1, 1),
        (8, 2, 1),
    ]


@pytest.mark.parametrize(
    ("predicted", "measured"), [(None, GIB), (GIB, None), (math.nan, GIB), (GIB, math.inf), (GIB, 0)]
)
def test_one_without_the_other_is_left_out(
    study: Study, record: MakeRecord, predicted: float | None, measured: float | None
) -> None:
    lone = _with(study, record(0, **_sizes(predicted, measured)), record(1, predictions={}))
    assert memory_points(lone) == ()
    assert memory_figure(lone) is None


def test_the_caption_has_median_and_worst_error(study: Study, record: MakeRecord) -> None:
    records = [record(i, rank=i + 1, **_sizes(size * GIB, GIB)) for i, size in enumerate((0.9, 1.02, 1.0))]
    figure = memory_figure(_with(study, *records))
    assert figure is not None
    assert "Median error 2.0 %, worst 10.0 %, of 3 configurations that differ in memory." in figure.caption
    assert figure.headings == ("Precision", "Rank", "Target modules", "Predicted", "Measured", "Error", "Trials")
    assert figure.rows[0] == ("nf4", "1", "q_v", "0.90 GiB", "1.00 GiB", "−10.0 %", "1")


def test_both_axes_have_the_same_ends_and_a_diagonal(study: Study) -> None:
    figure = memory_figure(study, width=600)
    assert figure is not None
    line, marks = figure.chart["layer"]
    assert line["encoding"]["x"]["scale"] == line["encoding"]["y"]["scale"] == marks["encoding"]["y"]["scale"]
    ends = line["data"]["values"]
    assert [end["predicted"] for end in ends] == [end["measured"] for end in ends]
    both = [point[name] for point in memory_points(study) for name in ("predicted", "measured")]
    assert [end["predicted"] for end in ends] == [min(both), max(both)]
    assert line["encoding"]["x"]["title"] == "Predicted peak memory (GiB)"
    assert line["encoding"]["y"]["title"] == "Measured peak memory (GiB)"


def test_of_many_footprints_the_table_keeps_some_and_the_figure_all(study: Study, record: MakeRecord) -> None:
    records = [record(i, rank=1 + i % 64, **_sizes(GIB + i, GIB)) for i in range(MOST_NUMBERS + 5)]
    figure = memory_figure(_with(study, *records))
    assert figure is not None
    assert len(figure.rows) == MOST_NUMBERS
    assert len(figure.chart["layer"][1]["data"]["values"]) == MOST_NUMBERS + 5
