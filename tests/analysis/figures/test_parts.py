"""What figures share: axis titles with unit and direction, the base model's levels."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from analysis.figures.parts import (
    CONFIGURATION,
    axis_title,
    base_layers,
    base_levels,
    base_words,
    configuration_row,
    measures_process,
    memory_label,
    to_display,
)
from analysis.figures.style import colour
from analysis.figures.vega_lite import quantity
from analysis.load import Study
from study.records.objectives import METRICS, Objective
from tests.support.study_directory import GIB, MakeRecord


def _on_cpu(study: Study, record: MakeRecord) -> Study:
    device = {"name": "CPU (x86_64)", "compute_dtype": "float32", "memory_source": "process resident peak"}
    return replace(study, records=(record(0, device=device),))


@pytest.mark.parametrize("metric", METRICS)
def test_every_axis_names_direction_and_unit(study: Study, metric: str) -> None:
    known = METRICS[metric]
    title = axis_title(study, Objective(metric, known.direction, 1.0))
    assert title.startswith(known.label)
    assert f"{'lower' if known.direction == 'minimize' else 'higher'} is better)" in title
    unit = {"bytes": "GiB", "fraction": "share of answers"}.get(known.unit, known.unit)
    assert f"({unit}, " in title or not unit


def test_the_studys_own_direction_is_named(study: Study) -> None:
    assert axis_title(study, Objective("perplexity", "maximize", 1.0)) == "Perplexity (higher is better)"


def test_a_cpus_memory_is_the_process_own(study: Study, record: MakeRecord) -> None:
    memory = Objective("peak_memory_bytes", "minimize", 1.0)
    assert axis_title(study, memory) == "Peak memory (GiB, lower is better)"
    cpu = _on_cpu(study, record)
    assert measures_process(cpu.records)
    assert memory_label(cpu) == "Peak process memory"
    assert axis_title(cpu, memory) == "Peak process memory (GiB, lower is better)"


def test_bytes_are_shown_in_gib() -> None:
    assert to_display("peak_device_bytes", 3 * GIB) == 3.0
    assert to_display("perplexity", 3 * GIB) == 3.0 * GIB


def test_base_levels_take_the_first_finite_value_of_each_precision(study: Study, record: MakeRecord) -> None:
    values = [("nf4", None), ("nf4", math.nan), ("nf4", 22.0), ("nf4", 23.0), ("bf16", 21.0)]
    records = [
        record(i, precision=p, status="failed", measurements={"base_perplexity": v}) for i, (p, v) in enumerate(values)
    ]
    levels = base_levels(replace(study, records=tuple(records)))
    assert levels == ({"precision": "bf16", "perplexity": 21.0}, {"precision": "nf4", "perplexity": 22.0})
    assert base_words(levels) == "the untuned base model, 21 (bf16), 22 (nf4)"


def test_base_rules_have_one_label_at_the_uppermost() -> None:
    bases = ({"precision": "bf16", "perplexity": 21.0}, {"precision": "nf4", "perplexity": 22.0})
    y = quantity("y", "Perplexity", {})
    rules, text = base_layers(bases, y, colour(bases), "right")
    assert [row["y"] for row in rules["data"]["values"]] == [21.0, 22.0]
    assert text["data"]["values"] == [{"y": 22.0, "label": "untuned base"}]
    assert text["encoding"]["x"] == {"value": "width"}
    assert base_layers((), y, colour(bases), "left") == []


def test_a_configuration_row_has_what_tooltips_name(record: MakeRecord) -> None:
    row = configuration_row(record(3, rank=16, rate=1e-3))
    assert list(row) == [name for name, _ in CONFIGURATION]
    assert (row["trial_id"], row["rank"], row["learning_rate"], row["target_modules"]) == ("t003", 16, "1e-3", "q_v")
