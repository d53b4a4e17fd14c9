"""Draws a figure on the page: by JavaScript that the page holds, or as a picture."""

from __future__ import annotations

from typing import Any

import altair as alt
import vl_convert
from markupsafe import Markup

from analysis.figures.parts import Figure
from analysis.figures.style import THEMES
from analysis.report.rendering import render, script_json

STATIC_WIDTH = 760  # pixels, of a figure without JavaScript


def drawing(figure: Figure, with_javascript: bool) -> Markup:
    """The figure with its title, its caption, and the numbers behind it."""
    specification = script_json(_specification(figure)) if with_javascript else None
    picture = None if with_javascript else _picture(figure.chart)
    return render("figure.html", figure=figure, specification=specification, picture=picture)


def _specification(figure: Figure) -> dict[str, Any]:
    values: dict[str, Any] = figure.chart.to_dict(validate=False)  # against a schema, which takes long; the tests do it
    return {name: value for name, value in values.items() if name != "title"}  # it stands above as text, which wraps


def _picture(chart: alt.LayerChart) -> Markup:
    spec = {**chart.properties(width=STATIC_WIDTH).to_dict(), "config": THEMES["light"]}
    version = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    return Markup(vl_convert.vegalite_to_svg(spec, vl_version=version))  # vl_convert has escaped what is text in it
