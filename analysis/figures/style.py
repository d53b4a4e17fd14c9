"""How all figures look: theme, palette, shapes, sizes and scales."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt

# Okabe and Ito's palette (jfly.uni-koeln.de/color), told apart with every kind of colour vision.
PRECISION_COLOURS = {"nf4": "#D55E00", "bf16": "#0080C5", "fp16": "#009E73", "fp32": "#CC79A7"}
TARGET_SHAPES = {"q_v": "circle", "all_linear": "square"}
OTHER_SHAPES = ("triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
NEUTRAL = "#808690"  # readable on white and on black
SHADE = "#D99A00"
POINT_SIZES = (60.0, 280.0)  # square pixels
LOG_FROM = 8.0  # the ratio of greatest to least value from which an axis is logarithmic
TICKS = alt.ExprRef("max(3, ceil(width / 90))")  # so that their labels keep apart at every width
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


def data(rows: Iterable[Mapping[str, Any]]) -> alt.InlineData:
    """Rows as a chart's own data: as JSON text, since Altair copies and checks each value of a list many times."""
    text = json.dumps([dict(row) for row in rows], ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return alt.InlineData(values=text, format=alt.JsonDataFormat(type="json"))


def scale(values: Sequence[float], top: float | None = None, padding: int = PADDING) -> alt.Scale:
    """An axis that fits the values, logarithmic where they span much; it ends at `top`, if given.

    It has the same padding and ignores zero, so that layers that share it agree.
    """
    shown = [value for value in values if top is None or value <= top]
    kind = "log" if shown and min(shown) > 0 and max(shown) / min(shown) >= LOG_FROM else "linear"
    options: dict[str, Any] = {"type": kind, "nice": False, "padding": padding}
    if top is not None and shown:
        options["domain"] = [min(shown), top]
    return alt.Scale(**options) if kind == "log" else alt.Scale(zero=False, **options)


def colour(rows: Iterable[Mapping[str, Any]]) -> alt.Color:
    """Colour by precision, the same for each precision in all figures of a study."""
    return alt.Color("precision:N", title="Precision", scale=_precision_scale(rows))


def fill(rows: Iterable[Mapping[str, Any]]) -> alt.Fill:
    """The inside of a mark, of its colour; the two share one legend."""
    return alt.Fill("precision:N", title="Precision", scale=_precision_scale(rows))


def _precision_scale(rows: Iterable[Mapping[str, Any]]) -> alt.Scale:
    there = {row["precision"] for row in rows}
    names = [name for name in PRECISION_COLOURS if name in there]
    return alt.Scale(domain=names, range=[PRECISION_COLOURS[name] for name in names])


def shape(rows: Iterable[Mapping[str, Any]]) -> alt.Shape:
    """Shape by target modules: a circle for q_v, a square for all_linear, others as they come."""
    there = {row["target_modules"] for row in rows}
    names = sorted(there, key=lambda name: (list(TARGET_SHAPES).index(name) if name in TARGET_SHAPES else 9, name))
    others = [name for name in names if name not in TARGET_SHAPES]
    spare = {name: OTHER_SHAPES[i % len(OTHER_SHAPES)] for i, name in enumerate(others)}
    shapes = [TARGET_SHAPES.get(name) or spare[name] for name in names]
    return alt.Shape("target_modules:N", title="Target modules", scale=alt.Scale(domain=names, range=shapes))


def rank_size(rows: Iterable[Mapping[str, Any]]) -> alt.Size:
    """Area by rank: ranks of one study stand at equal steps."""
    ranks = sorted({row["rank"] for row in rows})
    # A point scale spreads its domain between the two ends, and needs two of them also for a single rank.
    ends = POINT_SIZES if len(ranks) > 1 else (math.sqrt(math.prod(POINT_SIZES)),) * 2
    return alt.Size("rank:O", title="Rank", scale=alt.Scale(domain=ranks, range=list(ends)))


def emphasis(faint: float) -> Any:
    """Front members opaque, the others with opacity `faint`."""
    return alt.condition("datum.on_front", alt.value(1), alt.value(faint))


def tooltips(fields: Iterable[tuple[str, str]]) -> list[alt.Tooltip]:
    """What a mark tells under the pointer, from (field, title) pairs."""
    return [alt.Tooltip(f"{name}:N", title=title) for name, title in fields]
