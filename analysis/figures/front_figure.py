"""The front figure: quality against cost, with the budget, the base model and what did not fit."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
    MOST_NUMBERS,
    Figure,
    Row,
    axis_title,
    base_layers,
    base_levels,
    base_words,
)  # fmt: skip
from analysis.figures.style import NEUTRAL, SHADE, TICKS, colour, emphasis, rank_size, scale, shape, tooltips
from analysis.figures.vega_lite import Spec, category, chart, layer, mark, quantity, value
from analysis.host_memory import HEADING
from analysis.load import Study
from analysis.wording import budget, configuration_name, format_value
from study.records.objectives import Objective

LABEL_WIDTH = 52  # pixels
HEIGHT = 440  # pixels
RING_SIZE = 520  # square pixels, around the largest mark
RINGED = 3  # ways of offloading that a caption names
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
        for point in sorted(points, key=lambda point: not point["on_front"])[:MOST_NUMBERS]  # the front's first
    )
    whole = chart(_layers(study, points), title, width, HEIGHT)
    return Figure("front", title, _caption(study, points), whole, headings, rows)


def _layers(study: Study, points: Sequence[Row]) -> list[Spec]:
    across, upward = front_axes(study.objectives)
    bases = base_levels(study) if upward.metric == "perplexity" else ()
    edge, limit = memory_edge(study, points), budget_line(study, points)
    crosses = near_points(infeasible_points(study), points) if edge else []
    lines = [line for line in (edge, limit) if line]
    widths = scale([row["x"] for row in (*points, *lines, *crosses)], padding=LABEL_WIDTH)
    x = quantity("x", axis_title(study, across), widths, tickCount=TICKS)
    heights = [point["y"] for point in points] + [base["perplexity"] for base in bases]
    y = quantity("y", axis_title(study, upward), scale(heights))
    coloured = [*points, *bases, *crosses]
    hue = colour(coloured)
    layers = [*_edge_layers(edge, crosses, x, hue), *base_layers(bases, y, hue, "left")]
    if limit and not (edge and edge["x"] == limit["x"]):
        layers += _line_layers(limit, x, [2, 3])
    position = {"x": x, "y": y}
    return [
        *layers,
        _step_line(points, across, position),
        *_rings([point for point in points if point["in_host_memory"]], position),
        _marks(study, points, {**position, "color": hue, "fill": hue}),
        _labels(points, across, upward, position),
    ]


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
    return " ".join([*sentences, *_ring_sentences(points), *_infeasible_sentences(study, points)])


def _ring_sentences(points: Sequence[Row]) -> list[str]:
    waited = list(dict.fromkeys(point["in_host_memory"] for point in points if point["in_host_memory"]))
    if not waited:
        return []
    what = "; ".join(waited[:RINGED])
    more = "; …" if len(waited) > RINGED else ""
    return [f"Ringed: a part of the training waited in host memory ({what}{more})."]


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


def _marks(study: Study, points: Sequence[Row], encoding: Spec) -> Spec:
    values = [(f"shown_{objective.metric}", objective.label) for objective in study.objectives]
    look = {"shape": shape(points), "size": rank_size(points), "fillOpacity": emphasis(0)}
    waited = [("in_host_memory", HEADING)] if any(point["in_host_memory"] for point in points) else []
    told = tooltips([*values, *CONFIGURATION, *waited])
    front_on_top = sorted(points, key=lambda point: bool(point["on_front"]))
    return layer(front_on_top, {**encoding, **look, "tooltip": told}, mark("point", strokeWidth=2, opacity=1))


def _rings(points: Sequence[Row], position: Spec) -> list[Spec]:
    if not points:
        return []
    look = {"shape": "circle", "size": RING_SIZE, "filled": False, "strokeDash": [3, 2], "strokeWidth": 1.5}
    return [layer(points, position, mark("point", color=NEUTRAL, **look))]


def _step_line(points: Sequence[Row], across: Objective, position: Spec) -> Spec:
    # Between two of its points a budget buys the affordable one: the nearer to the worse side of the cost.
    steps = "step-after" if across.direction == "minimize" else "step-before"
    line = sorted({(point["x"], point["y"]) for point in points if point["on_line"]})
    rows = ({"x": x, "y": y} for x, y in line)
    return layer(rows, position, mark("line", interpolate=steps, color=NEUTRAL, strokeWidth=1.5))


def _labels(points: Sequence[Row], across: Objective, upward: Objective, position: Spec) -> Spec:
    """Labels on the better side of the front, where no mark can be."""
    members = [point for point in points if point["on_front"]]
    kept = {(point["x"], point["y"]): f"rank {point['rank']}" for point in members} if len(members) <= LABELLED else {}
    rows = ({"x": x, "y": y, "label": label} for (x, y), label in kept.items())
    left, low = across.direction == "minimize", upward.direction == "minimize"
    beside = {"align": "right" if left else "left", "dx": -8 if left else 8}
    over = {"baseline": "top" if low else "bottom", "dy": 5 if low else -5}
    return layer(rows, {**position, "text": category("label")}, mark("text", **beside, **over))


def _edge_layers(edge: Row | None, crosses: Sequence[Row], x: Spec, hue: Spec) -> list[Spec]:
    if edge is None:
        return []
    told = tooltips(
        [("asked", "Memory asked"), ("moment", "Moment"), ("source", "Predicted or observed"), *CONFIGURATION]
    )
    rug = {"x": x, "y": value("height"), "color": hue, "tooltip": told}
    return [
        layer([edge], {"x": x, "x2": value("width")}, mark("rect", color=SHADE, opacity=0.15)),
        *_line_layers(edge, x, [1, 0]),
        layer(crosses, rug, mark("text", text="✕", fontSize=14, dy=-12)),
    ]


def _line_layers(line: Row, x: Spec, dash: list[int]) -> list[Spec]:
    along = {"align": "right", "baseline": "bottom", "angle": 270, "dx": -6, "dy": -4}  # upward, along the line
    return [
        layer([line], {"x": x}, mark("rule", strokeDash=dash, strokeWidth=1.5, color=NEUTRAL)),
        layer([line], {"x": x, "y": value(0), "text": category("label")}, mark("text", **along)),
    ]
