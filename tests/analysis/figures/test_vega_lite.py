"""Specifications as JSON: each piece is what Altair writes for it, and a whole chart keeps Vega-Lite's schema."""

from __future__ import annotations

from typing import Any

import altair as alt
import pytest
import vl_convert
from jsonschema import ValidationError

from analysis.figures.vega_lite import MAJOR_VERSION, Spec, category, chart, either, layer, mark, quantity, value

LINEAR = {"type": "linear", "zero": False}


@pytest.mark.parametrize(
    ("written", "of_altair"),
    [
        (quantity("x", "Size", LINEAR), alt.X("x:Q", title="Size", scale=alt.Scale(**LINEAR))),
        (
            quantity("x", "Size", LINEAR, tickCount=3, format="d"),
            alt.X("x:Q", title="Size", scale=alt.Scale(**LINEAR), axis=alt.Axis(tickCount=3, format="d")),
        ),
        (category("name"), alt.Text("name:N")),
        (category("name", title="Name"), alt.Tooltip("name:N", title="Name")),
        (value("width"), alt.XValue("width")),
        (either("datum.good", 1, 0.5), alt.OpacityValue(condition={"test": "datum.good", "value": 1}, value=0.5)),
    ],
)
def test_a_channel_is_what_altair_writes(written: Spec, of_altair: Any) -> None:
    shorthand = getattr(of_altair, "shorthand", alt.Undefined)
    whole = of_altair.to_dict(context={"data": None}) if shorthand is not alt.Undefined else of_altair.to_dict()
    assert written == whole


def _chart(*marks: Spec) -> Spec:
    rows = ({"x": n, "name": "ü<"} for n in range(3))
    encoding = {"x": quantity("x", "Size", LINEAR), "color": category("name")}
    return chart([layer(rows, encoding, *marks)], "Sizes", 300, 200)


@pytest.mark.parametrize("kinds", [("point",), ("line", "point")])
def test_a_chart_keeps_the_schema_and_every_mark_is_drawn(kinds: tuple[str, ...]) -> None:
    spec = _chart(*(mark(kind, strokeWidth=2) for kind in kinds))
    alt.Chart.from_dict(spec)
    svg = vl_convert.vegalite_to_svg(spec)
    assert [f"mark-{'symbol' if kind == 'point' else kind} " in svg for kind in kinds] == [True] * len(kinds)
    assert "Sizes" in svg


def test_the_check_against_the_schema_sees_what_is_wrong() -> None:
    with pytest.raises(ValidationError):
        alt.Chart.from_dict(_chart(mark("pint")))


def test_the_schemas_version_is_one_that_is_drawn() -> None:
    assert f"v{MAJOR_VERSION}." in alt.SCHEMA_VERSION
    assert any(version.startswith(f"{MAJOR_VERSION}.") for version in vl_convert.get_vegalite_versions())
