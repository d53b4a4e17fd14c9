"""Draws a figure on the page: by JavaScript that the page holds, or as a picture."""

from __future__ import annotations

import vl_convert
from markupsafe import Markup

from analysis.figures.parts import Figure
from analysis.figures.style import THEMES
from analysis.figures.vega_lite import Spec
from analysis.report.rendering import render, script_json

STATIC_WIDTH = 760  # pixels, of a figure without JavaScript


def drawing(figure: Figure, with_javascript: bool) -> Markup:
    """The figure with its title, its caption, and the numbers behind it."""
    specification = script_json(_specification(figure)) if with_javascript else None
    picture = None if with_javascript else _picture(figure.chart)
    return render("figure.html", figure=figure, specification=specification, picture=picture)


def _specification(figure: Figure) -> Spec:
    # The title stands above the figure as text, which wraps.
    return {name: value for name, value in figure.chart.items() if name != "title"}


def _picture(chart: Spec) -> Markup:
    spec = {**chart, "width": STATIC_WIDTH, "config": THEMES["light"]}
    return Markup(vl_convert.vegalite_to_svg(spec))  # vl_convert has escaped what is text in it
