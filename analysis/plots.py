"""All figures of a study, each with its caption and the numbers behind it."""

from __future__ import annotations

from analysis.curve_plot import curves_figure
from analysis.figure_parts import Figure
from analysis.front_plot import front_figure
from analysis.load import Study
from analysis.memory_plot import memory_figure

FIGURES = {"front": front_figure, "curves": curves_figure, "memory": memory_figure}


def figures(study: Study, width: int | str = "container") -> dict[str, Figure]:
    """The figures that the study has data for, by name; `width` is in pixels, or `container` for a page's own."""
    drawn = {name: draw(study, width) for name, draw in FIGURES.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}
