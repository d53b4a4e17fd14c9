"""How all figures look: theme, palette, shapes, sizes and scales."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analysis.figures.vega_lite import Spec, category, either

# Okabe and Ito's palette (jfly.uni-koeln.de/color), told apart with every kind of colour vision.
PRECISION_COLOURS = {"nf4": "#D55E00", "bf16": "#0080C5", "fp16": "#009E73", "fp32": "#CC79A7"}
TARGET_SHAPES = {"q_v": "circle", "all_linear": "square"}
OTHER_SHAPES = ("triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
NEUTRAL = "#808690"  # readable on white and on black
SHADE = "#D99A00"
POINT_SIZES = (60.0, 280.0)  # square pixels
LOG_FROM = 8.0  # the ratio of greatest to least value from which an axis is logarithmic
TICKS = {"expr": "max(3, ceil(width / 90))"}  # so that their labels keep apart at every width
PADDING = 24  # pixels between the outermost points and the frame


def _theme(text: str, faint: str, grid: str) -> dict[str, Any]:
    words = {"labelFontSize": 12, "titleFontSize": 13, "labelColor": text, "titleColor": text}
    return {
        "background": "transparent",
        "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif",
        "view": {"stroke": "transparent"},
        "axis": {
            **words, "titleFontWeight": "normal", "titlePadding": 10, "gridColor": grid, "domainColor": faint,
            "tickColor": faint,
        },
        "legend": {
            **words, "titleFontWeight": "bold", "titlePadding": 6, "rowPadding": 4, "symbolStrokeWidth": 2,
            "symbolOpacity": 1, "symbolBaseFillColor": NEUTRAL, "symbolBaseStrokeColor": NEUTRAL,
        },
        "title": {
            "anchor": "start", "frame": "group", "fontSize": 16, "subtitleFontSize": 13, "color": text,
            "subtitleColor": text, "subtitlePadding": 5, "offset": 14,
        },
        "text": {"color": text, "fontSize": 12},
    }  # fmt: skip


THEMES: dict[str, dict[str, Any]] = {
    "light": _theme("#1f2328", "#8c959f", "#e4e7eb"),
    "dark": _theme("#e6e8eb", "#6e7681", "#30363d"),
}


def scale(values: Sequence[float], top: float | None = None, padding: int = PADDING) -> Spec:
    """An axis that fits the values, logarithmic where they span much; it ends at `top`, if given.

    It has the same padding and ignores zero, so that layers that share it agree.
    """
    shown = [value for value in values if top is None or value <= top]
    kind = "log" if shown and min(shown) > 0 and max(shown) / min(shown) >= LOG_FROM else "linear"
    options: Spec = {"type": kind, "nice": False, "padding": padding}
    if top is not None and shown:
        options["domain"] = [min(shown), top]
    return options if kind == "log" else {"zero": False, **options}


def colour(rows: Iterable[Mapping[str, Any]]) -> Spec:
    """Colour by precision, the same for each precision in all figures of a study, of edge and inside alike."""
    there = {row["precision"] for row in rows}
    names = [name for name in PRECISION_COLOURS if name in there]
    colours = [PRECISION_COLOURS[name] for name in names]
    return category("precision", title="Precision", scale={"domain": names, "range": colours})


def shape(rows: Iterable[Mapping[str, Any]]) -> Spec:
    """Shape by target modules: a circle for q_v, a square for all_linear, others as they come."""
    there = {row["target_modules"] for row in rows}
    names = sorted(there, key=lambda name: (list(TARGET_SHAPES).index(name) if name in TARGET_SHAPES else 9, name))
    others = [name for name in names if name not in TARGET_SHAPES]
    spare = {name: OTHER_SHAPES[i % len(OTHER_SHAPES)] for i, name in enumerate(others)}
    shapes = [TARGET_SHAPES.get(name) or spare[name] for name in names]
    return category("target_modules", title="Target modules", scale={"domain": names, "range": shapes})


def rank_size(rows: Iterable[Mapping[str, Any]]) -> Spec:
    """Area by rank: ranks of one study stand at equal steps."""
    ranks = sorted({row["rank"] for row in rows})
    # A point scale spreads its domain between the two ends, and needs two of them also for a single rank.
    ends = POINT_SIZES if len(ranks) > 1 else (math.sqrt(math.prod(POINT_SIZES)),) * 2
    return {"field": "rank", "type": "ordinal", "title": "Rank", "scale": {"domain": ranks, "range": list(ends)}}


def emphasis(faint: float) -> Spec:
    """Front members opaque, the others with opacity `faint`."""
    return either("datum.on_front", 1, faint)


def tooltips(fields: Iterable[tuple[str, str]]) -> list[Spec]:
    """What a mark tells under the pointer, from (field, title) pairs."""
    return [category(name, title=title) for name, title in fields]
