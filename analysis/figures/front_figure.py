"""The front figure: quality against cost, with the budget, the base model and what did not fit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt

from analysis.figures.front_rows import (
    PEAK,
    budget_line,
    bytes_beside_peak,
    front_axes,
    front_points,
    infeasible_points,
    memory_edge,
    near_points,
)
from analysis.figures.parts import (
    CONFIGURATION,
    Figure,
    Row,
    axis_title,
    base_layers,
    base_levels,
    base_words,
)  # fmt: skip
from analysis.figures.style import NEUTRAL, SHADE, TICKS, colour, data, fill, rank_size, scale, shape, tooltips
from analysis.load import Study
from analysis.wording import budget, configuration_name, format_value
from study.records.objectives import Objective

MOST_NUMBERS = 500  # rows of the table behind the figure: the front's first
LABEL_WIDTH = 52  # pixels
LABELLED = 16  # more labels than this would cover each other


def front_figure(study: Study, width: int | str = "container") -> Figure | None:
    """Quality against cost of all complete trials; None without any."""
    points = front_points(study)
    if not points:
        return None
    across, upward = front_axes(study.objectives)
    title = f"{upward.label} against {across.label.lower()}"
    headings = ("trial", "configuration", *(objective.label for objective in study.objectives), "on the front")
    names = {record.trial_id: configuration_name(record) for record in study.records}
    rows = tuple(
        (point["trial_id"], names[point["trial_id"]], *_shown(study, point), "yes" if point["on_front"] else "no")
        for point in sorted(points, key=lambda point: not point["on_front"])[:MOST_NUMBERS]
    )
    return Figure("front", title, _caption(study, points), _chart(study, points, title, width), headings, rows)


def _chart(study: Study, points: Sequence[Row], title: str, width: int | str) -> alt.LayerChart:
    across, upward = front_axes(study.objectives)
    bases = base_levels(study) if upward.metric == "perplexity" else ()
    edge, limit = memory_edge(study, points), budget_line(study, points)
    crosses = near_points(infeasible_points(study), points) if edge else []
    lines = [line for line in (edge, limit) if line]
    widths = scale([row["x"] for row in (*points, *lines, *crosses)], padding=LABEL_WIDTH)
    x = alt.X("x:Q", title=axis_title(study, across), scale=widths, axis=alt.Axis(tickCount=TICKS))
    heights = [point["y"] for point in points] + [base["perplexity"] for base in bases]
    y = alt.Y("y:Q", title=axis_title(study, upward), scale=scale(heights))
    coloured = [*points, *bases, *crosses]
    hue = colour(coloured)
    layers = [*_edge_layers(edge, crosses, x, hue), *base_layers(bases, y, hue, "left")]
    if limit and not (edge and edge["x"] == limit["x"]):
        layers += _line_layers(limit, x, [2, 3])
    layers += [
        _step_line(points, across).encode(x=x, y=y),
        _marks(study, points).encode(x=x, y=y, color=hue, fill=fill(coloured)),
    ]
    layers.append(_labels(points, across, upward).encode(x=x, y=y))
    return alt.layer(*layers).properties(width=width, height=440, title=title)


def _caption(study: Study, points: Sequence[Row]) -> str:
    across, upward = front_axes(study.objectives)
    count = sum(point["on_front"] for point in points)
    better = "lower" if upward.direction == "minimize" else "higher"
    side = "left" if across.direction == "minimize" else "right"
    trials = f"{len(points)} complete trial{'s' * (len(points) != 1)}"
    sentences = [
        f"{count} of {trials} on the front (filled): whatever betters one of their objectives worsens another. "
        f"Further {side} and {better} is better; the line shows what each {across.label.lower()} buys."
    ]
    if upward.metric == "perplexity" and base_levels(study):
        sentences.append(f"Dashed: {base_words(base_levels(study))}.")
    limit = budget(study, across)
    if across.direction == "minimize" and budget_line(study, points) is None and math.isfinite(limit):
        sentences.append(f"The budget, {format_value(across.metric, limit)}, would lie further right.")
    if (edge := memory_edge(study, points) or budget_line(study, points)) and bytes_beside_peak(study, across):
        left = format_value(PEAK, bytes_beside_peak(study, across))
        sentences.append(
            f"The line of the {edge['label']} lies {left} further left than that memory: so much did trials need "
            "beside their peak, for the allocator’s fragments and CUDA’s context."
        )
    others = [objective.label.lower() for objective in study.objectives if objective not in (across, upward)]
    if others:
        sentences.append(f"The front is also decided by what is not shown here: {', '.join(others)}.")
    return " ".join([*sentences, *_infeasible_sentences(study, points)])


def _infeasible_sentences(study: Study, points: Sequence[Row]) -> list[str]:
    infeasible = infeasible_points(study)
    if not infeasible:
        return []
    drawn = len(near_points(infeasible, points)) if memory_edge(study, points) else 0
    beyond = len(infeasible) - drawn
    sentences = [f"{_count(drawn)} did not fit: ✕ at the bottom, at the memory asked for."] if drawn else []
    if beyond:
        most = max(infeasible, key=lambda row: float(row["x"]))["asked"]
        sentences.append(f"{_count(beyond)} did not fit and would lie further right, up to {most}.")
    return sentences


def _count(trials: int) -> str:
    return f"{trials} trial{'s' * (trials != 1)}"


def _shown(study: Study, point: Row) -> list[str]:
    return [point[f"shown_{objective.metric}"] for objective in study.objectives]


def _marks(study: Study, points: Sequence[Row]) -> alt.Chart:
    values = [(f"shown_{objective.metric}", objective.label) for objective in study.objectives]
    front_on_top = sorted(points, key=lambda point: bool(point["on_front"]))
    return (
        alt.Chart(data(front_on_top))
        .mark_point(strokeWidth=2, opacity=1)
        .encode(
            fillOpacity=alt.condition("datum.on_front", alt.value(1), alt.value(0)),
            shape=shape(points),
            size=rank_size(points),
            tooltip=tooltips([*values, *CONFIGURATION]),
        )
    )


def _step_line(points: Sequence[Row], across: Objective) -> alt.Chart:
    # Between two of its points a budget buys the affordable one: the nearer to the worse side of the cost.
    steps = "step-after" if across.direction == "minimize" else "step-before"
    line = sorted({(point["x"], point["y"]) for point in points if point["on_line"]})
    rows = data({"x": x, "y": y} for x, y in line)
    return alt.Chart(rows).mark_line(interpolate=steps, color=NEUTRAL, strokeWidth=1.5)


def _labels(points: Sequence[Row], across: Objective, upward: Objective) -> alt.Chart:
    """Labels on the better side of the front, where no mark can be."""
    members = [point for point in points if point["on_front"]]
    kept = {(point["x"], point["y"]): f"rank {point['rank']}" for point in members} if len(members) <= LABELLED else {}
    rows = data({"x": x, "y": y, "label": label} for (x, y), label in kept.items())
    left, low = across.direction == "minimize", upward.direction == "minimize"
    beside = {"align": "right" if left else "left", "dx": -8 if left else 8}
    over = {"baseline": "top" if low else "bottom", "dy": 5 if low else -5}
    return alt.Chart(rows).mark_text(**beside, **over).encode(text="label:N")


def _edge_layers(edge: Row | None, crosses: Sequence[Row], x: alt.X, hue: alt.Color) -> list[alt.Chart]:
    if edge is None:
        return []
    shade = alt.Chart(data([edge])).mark_rect(color=SHADE, opacity=0.15).encode(x=x, x2=alt.value("width"))
    marks = alt.Chart(data(crosses)).mark_text(text="✕", fontSize=14, dy=-12)
    told = tooltips(
        [("asked", "Memory asked"), ("moment", "Moment"), ("source", "Predicted or observed"), *CONFIGURATION]
    )
    rug = marks.encode(x=x, y=alt.value("height"), color=hue, tooltip=told)
    return [shade, *_line_layers(edge, x, [1, 0]), rug]


def _line_layers(line: Row, x: alt.X, dash: list[int]) -> list[alt.Chart]:
    chart = alt.Chart(data([line]))
    rule = chart.mark_rule(strokeDash=dash, strokeWidth=1.5, color=NEUTRAL).encode(x=x)
    text = chart.mark_text(align="right", baseline="bottom", angle=270, dx=-6, dy=-4)  # upward, along the line
    return [rule, text.encode(x=x, y=alt.value(0), text="label:N")]
