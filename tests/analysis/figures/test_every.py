"""All figures: which there are, that Vega-Lite compiles and draws them, and that they say enough."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import altair as alt
import pytest
import vl_convert

from analysis.figures.every import FIGURES, figures
from analysis.figures.style import THEMES
from analysis.load import Study
from study.records.objectives import METRICS, Objective
from tests.support.study_directory import GIB, MakeRecord

REFERENCES = {"perplexity": 30.0, "accuracy": 0.1, "peak_memory_bytes": 1.25 * GIB, "seconds_per_epoch": 60.0}
REFERENCES |= {"train_tokens_per_second": 10.0, "trainable_parameters": 1e9}


def _objectives(*metrics: str) -> tuple[Objective, ...]:
    return tuple(Objective(name, METRICS[name].direction, REFERENCES[name]) for name in metrics)


def _svg(spec: dict[str, Any], theme: str = "light") -> str:
    alt.Chart.from_dict(spec)  # checks it against Vega-Lite's schema
    svg: str = vl_convert.vegalite_to_svg({**spec, "config": THEMES[theme]})
    return svg


def test_a_study_with_everything_has_every_figure(study: Study) -> None:
    drawn = figures(study)
    assert list(drawn) == list(FIGURES) == ["front", "curves", "memory"]
    assert all(figure.name == name for name, figure in drawn.items())


def test_a_study_without_data_has_no_figure(study: Study, record: MakeRecord) -> None:
    assert figures(replace(study, records=())) == {}
    assert figures(replace(study, records=(record(status="failed", curve=[]),))) == {}


@pytest.mark.parametrize("theme", sorted(THEMES))
@pytest.mark.parametrize("name", list(FIGURES))
def test_figures_are_drawn(study: Study, name: str, theme: str) -> None:
    figure = figures(study, width=600)[name]
    svg = _svg(figure.chart, theme)
    assert svg.startswith("<svg")
    encoding = next(layer["encoding"] for layer in figure.chart["layer"] if "tooltip" in layer["encoding"])
    for title in (encoding[axis]["title"] for axis in "xy" if "title" in encoding[axis]):
        assert title in svg
    assert figure.title in svg
    assert "NaN" not in svg


@pytest.mark.parametrize(
    "metrics",
    [
        ("accuracy", "train_tokens_per_second"),
        ("perplexity", "peak_memory_bytes", "seconds_per_epoch"),
        ("perplexity", "accuracy", "peak_memory_bytes", "train_tokens_per_second"),
        ("trainable_parameters", "seconds_per_epoch"),
    ],
)
def test_every_choice_of_objectives_can_be_drawn(study: Study, metrics: tuple[str, ...]) -> None:
    chosen = replace(study, objectives=_objectives(*metrics))
    assert "<path" in _svg(figures(chosen, width=500)["front"].chart)


@pytest.mark.parametrize("count", [1, 2])
def test_a_single_trial_or_equal_ones_can_be_drawn(study: Study, record: MakeRecord, count: int) -> None:
    few = replace(study, records=tuple(record(i, curve=record().curve[:1]) for i in range(count)))
    for figure in figures(few, width=400).values():
        svg = _svg(figure.chart)
        assert "NaN" not in svg


def test_a_logarithmic_front_can_be_drawn(study: Study, record: MakeRecord) -> None:
    sizes = ((0.5, 900.0), (3.0, 40.0), (30.0, 11.0))
    wide = [record(i, measurements={"peak_memory_bytes": x * GIB, "perplexity": y}) for i, (x, y) in enumerate(sizes)]
    spec = figures(replace(study, records=tuple(wide)), width=500)["front"].chart
    assert "NaN" not in _svg(spec)
    assert {layer["encoding"][axis]["scale"]["type"] for layer in spec["layer"][-3:] for axis in "xy"} == {"log"}


def test_captions_say_what_to_see_and_tables_stand_behind(study: Study) -> None:
    for figure in figures(study).values():
        assert figure.caption.endswith(".")
        assert len(figure.caption) > 60
        assert figure.rows
        assert {len(row) for row in figure.rows} == {len(figure.headings)}
        assert all(isinstance(text, str) for row in figure.rows for text in row)


def test_specs_are_plain_json_and_load_nothing(study: Study) -> None:
    for figure in figures(study).values():
        spec = figure.chart
        assert spec["$schema"].startswith("https://vega.github.io/schema/")  # a name, never loaded
        text = json.dumps({key: value for key, value in spec.items() if key != "$schema"}, allow_nan=False)
        assert "http" not in text
        assert '"url"' not in text
