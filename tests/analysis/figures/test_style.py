"""Scales, colours, shapes and sizes; the two themes."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.figures.style import (
    LOG_FROM,
    OTHER_SHAPES,
    POINT_SIZES,
    PRECISION_COLOURS,
    THEMES,
    colour,
    rank_size,
    scale,
    shape,
)


def _scale(values: list[float], top: float | None = None) -> dict[str, Any]:
    return scale(values, top)


def _luminance(colour: str) -> float:
    """Relative luminance of WCAG 2.2 (w3.org/TR/WCAG22/#dfn-relative-luminance)."""
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def _contrast(one: str, other: str) -> float:
    bright, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 7.9], "linear"), ([1, LOG_FROM], "log"), ([0, 100], "linear"), ([-1, 100], "linear"), ([5], "linear"),
        ([], "linear"), ([1, 2, 1000], "log"),
    ],
)  # fmt: skip
def test_an_axis_is_logarithmic_where_values_span_much(values: list[float], kind: str) -> None:
    assert _scale(values)["type"] == kind


def test_a_top_cuts_the_axis_and_what_is_above_does_not_count() -> None:
    cut = _scale([10, 20, 10_000], top=30)
    assert (cut["type"], cut["domain"]) == ("linear", [10, 30])
    assert "domain" not in _scale([10, 20])


def test_linear_axes_need_not_show_zero() -> None:
    assert _scale([10, 12])["zero"] is False


def test_a_precision_has_its_colour_in_every_figure() -> None:
    some, all_of_them = [{"precision": "nf4"}], [{"precision": name} for name in PRECISION_COLOURS]
    assert colour(some)["scale"] == {"domain": ["nf4"], "range": [PRECISION_COLOURS["nf4"]]}
    assert colour(all_of_them)["scale"]["range"] == list(PRECISION_COLOURS.values())


def test_known_target_modules_keep_their_shape_and_others_differ() -> None:
    rows = [{"target_modules": name} for name in ("v+o", "all_linear", "q+o", "q_v", "q+o")]
    found = shape(rows)["scale"]
    assert found == {"domain": ["q_v", "all_linear", "q+o", "v+o"], "range": ["circle", "square", *OTHER_SHAPES[:2]]}


def test_ranks_stand_at_equal_steps_of_area() -> None:
    found = rank_size([{"rank": rank} for rank in (64, 8, 2, 8)])["scale"]
    low, high = POINT_SIZES
    assert found == {"domain": [2, 8, 64], "range": [low, high]}
    ends = rank_size([{"rank": 8}])["scale"]["range"]
    assert low < ends[0] == ends[1] < high


@pytest.mark.parametrize(("theme", "page"), [("light", "#ffffff"), ("dark", "#15181c")])
def test_figures_can_be_read_on_their_page(theme: str, page: str) -> None:
    config = THEMES[theme]
    texts = [config["text"]["color"], config["axis"]["labelColor"], config["legend"]["labelColor"]]
    assert min(_contrast(text, page) for text in texts) >= 4.5  # WCAG 2.2, 1.4.3
    marks = [*PRECISION_COLOURS.values(), config["legend"]["symbolBaseFillColor"]]
    assert min(_contrast(mark, page) for mark in marks) >= 2.9  # 1.4.11 asks for 3
