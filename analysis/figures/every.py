"""All figures of a study, each with its caption and the numbers behind it."""

from __future__ import annotations

from analysis.figures.curve_figure import curves_figure
from analysis.figures.front_figure import front_figure
from analysis.figures.memory_figure import memory_figure
from analysis.figures.parts import Figure
from analysis.load import Study

FIGURES = {"front": front_figure, "curves": curves_figure, "memory": memory_figure}


def figures(study: Study, width: int | str = "container") -> dict[str, Figure]:
    """The figures that the study has data for, by name; `width` is in pixels, or `container` for a page's own."""
    drawn = {name: draw(study, width) for name, draw in FIGURES.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}
