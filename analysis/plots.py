"""The figures, each drawn by Altair from plain rows that a pure function computes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from analysis.figure_style import NEUTRAL, colour, data, emphasis, rank_size, scale, shape, tooltips
from analysis.load import Study
from analysis.pareto import cost_index, front, non_dominated, quality_index
from analysis.wording import GIB, budget, format_rate, format_value
from study.objectives import METRICS, Objective
from study.records import TrialRecord

Row = dict[str, Any]

LABELLED = 16  # more labels than this would cover each other
REACH = 3.0  # a budget further away than this many times the greatest cost would squeeze the points; it is left out
CUT = 20.0  # curves are cut off above this many times their median: diverging trials would flatten the others
CONFIGURATION = (
    ("trial_id", "Trial"), ("precision", "Precision"), ("rank", "Rank"), ("lora_alpha", "Alpha"),
    ("lora_dropout", "Dropout"), ("target_modules", "Target modules"), ("learning_rate", "Learning rate"),
    ("seed", "Seed"),
)  # fmt: skip


# -- the front ---------------------------------------------------------------------------------------------------------


def front_axes(objectives: Sequence[Objective]) -> tuple[Objective, Objective]:
    """The objectives across and upward: the first cost, and the first quality."""
    return objectives[cost_index(objectives)], objectives[quality_index(objectives)]


def front_points(study: Study) -> tuple[Row, ...]:
    """One row for each complete trial that has both shown values.

    `x` and `y` are as shown (bytes in GiB); `on_front` is decided by all objectives, `on_line` by the two shown alone:
    the step line joins those. The configuration and all objectives, as text, are for the tooltip.
    """
    across, upward = front_axes(study.objectives)
    members = {record.trial_id for record in front(study.records, study.objectives)}
    pairs = [(record, _pair(record, across, upward)) for record in study.records if record.status == "complete"]
    shown = [(record, pair) for record, pair in pairs if pair is not None]
    on_line = non_dominated([(across.to_minimize(x), upward.to_minimize(y)) for _, (x, y) in shown])
    return tuple(
        {
            **_configuration(record),
            **{f"shown_{o.metric}": format_value(o.metric, record.measurements[o.metric]) for o in study.objectives},
            "x": to_display(across.metric, x),
            "y": to_display(upward.metric, y),
            "on_front": record.trial_id in members,
            "on_line": bool(on),
        }
        for (record, (x, y)), on in zip(shown, on_line, strict=True)
    )


def base_levels(study: Study) -> tuple[Row, ...]:
    """The untuned base model's perplexity, one row for each precision it was measured in."""
    levels: dict[str, float] = {}
    for record in study.records:
        value = record.measurements["base_perplexity"]
        if value is not None and math.isfinite(value):
            levels.setdefault(record.config.precision, float(value))
    return tuple({"precision": precision, "perplexity": value} for precision, value in sorted(levels.items()))


def budget_line(study: Study, points: Sequence[Mapping[str, Any]]) -> Row | None:
    """Where the budget lies across, with its label; None where it is too far from the points to be shown."""
    across, _ = front_axes(study.objectives)
    bound = budget(study, across)
    x = to_display(across.metric, bound)
    if not points or x <= 0 or x > REACH * max(point["x"] for point in points):
        return None
    return {"x": x, "label": f"budget {format_value(across.metric, bound)}"}


def front_chart(study: Study, width: int | str = "container") -> alt.LayerChart:
    """The front figure; call it only where `front_points` has any."""
    across, upward = front_axes(study.objectives)
    points = front_points(study)
    bases = base_levels(study) if upward.metric == "perplexity" else ()
    limit = budget_line(study, points)
    widths = [point["x"] for point in points] + ([limit["x"]] if limit else [])
    heights = [point["y"] for point in points] + [base["perplexity"] for base in bases]
    x = alt.X("x:Q", title=axis_title(study, across), scale=scale(widths))
    y = alt.Y("y:Q", title=axis_title(study, upward), scale=scale(heights))
    hue = colour([*points, *bases])
    layers = [*_base_layers(bases, y, "y", hue), *_budget_layers(limit, x), _step_line(points, across).encode(x=x, y=y)]
    layers += [_marks(study, points).encode(x=x, y=y, color=hue), _labels(points).encode(x=x, y=y)]
    return alt.layer(*layers).properties(width=width, height=440, title=_front_title(study, points))


def _front_title(study: Study, points: Sequence[Row]) -> alt.TitleParams:
    across, upward = front_axes(study.objectives)
    count = sum(point["on_front"] for point in points)
    better = "Lower" if upward.direction == "minimize" else "Higher"
    side = "left" if across.direction == "minimize" else "right"
    lines = [f"{better} and further {side} is better; a faint trial is beaten by another in every objective."]
    others = [objective.label.lower() for objective in study.objectives if objective not in (across, upward)]
    if others:
        lines.append(f"The front is also decided by what is not shown here: {', '.join(others)}.")
    title = f"{count} of {len(points)} complete trial{'s' * (len(points) != 1)} on the front of"
    return alt.TitleParams(f"{title} {upward.label.lower()} and {across.label.lower()}", subtitle=lines)


def _marks(study: Study, points: Sequence[Row]) -> alt.Chart:
    values = [(f"shown_{objective.metric}", objective.label) for objective in study.objectives]
    marks = alt.Chart(data(points)).mark_point(filled=True, strokeWidth=1)
    return marks.encode(
        shape=shape(points),
        size=rank_size(points),
        opacity=emphasis(0.3),
        order=alt.Order("on_front:N"),  # the front's are drawn last, on top
        tooltip=tooltips([*values, *CONFIGURATION]),
    )


def _step_line(points: Sequence[Row], across: Objective) -> alt.Chart:
    # Between two of its points a budget buys the affordable one: the nearer to the worse side of the cost.
    steps = "step-after" if across.direction == "minimize" else "step-before"
    line = sorted({(point["x"], point["y"]) for point in points if point["on_line"]})
    rows = data({"x": x, "y": y} for x, y in line)
    return alt.Chart(rows).mark_line(interpolate=steps, color=NEUTRAL, strokeWidth=1.5)


def _labels(points: Sequence[Row]) -> alt.Chart:
    members = [point for point in points if point["on_front"]]
    kept = {(point["x"], point["y"]): f"rank {point['rank']}" for point in members} if len(members) <= LABELLED else {}
    rows = data({"x": x, "y": y, "label": label} for (x, y), label in kept.items())
    return alt.Chart(rows).mark_text(align="left", baseline="bottom", dx=9, dy=-6).encode(text="label:N")


def _base_layers(bases: Sequence[Row], y: alt.Y, field: str, hue: alt.Color) -> list[alt.Chart]:
    """The base model's own perplexity as dashed rules, one label for all above the uppermost."""
    if not bases:
        return []
    rows = [{"precision": base["precision"], field: base["perplexity"]} for base in bases]
    rules = alt.Chart(data(rows)).mark_rule(strokeDash=[6, 4], strokeWidth=1.5).encode(y=y, color=hue)
    values = ", ".join(f"{format_value('perplexity', base['perplexity'])} ({base['precision']})" for base in bases)
    highest = {field: max(row[field] for row in rows), "label": f"base model, untuned: {values}"}
    text = alt.Chart(data([highest])).mark_text(align="left", baseline="bottom", dx=6, dy=-4)
    return [rules, text.encode(x=alt.value(0), y=y, text="label:N")]


def _budget_layers(limit: Row | None, x: alt.X) -> list[alt.Chart]:
    if limit is None:
        return []
    chart = alt.Chart(data([limit]))
    rule = chart.mark_rule(strokeDash=[2, 3], strokeWidth=1.5, color=NEUTRAL).encode(x=x)
    text = chart.mark_text(align="right", baseline="top", dx=-6, dy=4)
    return [rule, text.encode(x=x, y=alt.value(0), text="label:N")]


# -- training curves ---------------------------------------------------------------------------------------------------


def curve_points(study: Study) -> tuple[Row, ...]:
    """One row for each evaluation of each trial with a finite perplexity, by step; a step's last write wins."""
    members = {record.trial_id for record in front(study.records, study.objectives)}
    rows: list[Row] = []
    for record in study.records:
        by_step = {point["step"]: point.get("perplexity") for point in record.curve}
        finite = {step: value for step, value in by_step.items() if value is not None and math.isfinite(value)}
        same = {**_configuration(record), "status": record.status, "on_front": record.trial_id in members}
        rows += [{"step": step, "perplexity": finite[step], **same} for step in sorted(finite)]
    return tuple(rows)


def curves_chart(study: Study, width: int | str = "container") -> alt.LayerChart:
    """Evaluation perplexity over the optimizer step; call it only where `curve_points` has any."""
    points = curve_points(study)
    values = [point["perplexity"] for point in points]
    top = CUT * statistics.median(values)
    is_cut = max(values) > top
    bases = [base for base in base_levels(study) if base["perplexity"] <= top]
    heights = scale(values + [base["perplexity"] for base in bases], top if is_cut else None)
    y = alt.Y("perplexity:Q", title="Evaluation perplexity", scale=heights)
    hue = colour([*points, *bases])
    note = f" Values above {format_value('perplexity', top)} are cut off." * is_cut
    chart = alt.Chart(data(points)).encode(
        x=alt.X(
            "step:Q", title="Optimizer step", axis=alt.Axis(tickMinStep=1, format="d"), scale=alt.Scale(zero=False)
        ),
        y=y,
        color=hue,
        opacity=emphasis(0.35),
        detail="trial_id:N",
        tooltip=tooltips([("step", "Step"), ("perplexity", "Perplexity"), ("status", "Status"), *CONFIGURATION]),
    )
    layers = [
        *_base_layers(bases, y, "perplexity", hue),
        chart.mark_line(clip=True, strokeWidth=2),
        chart.mark_point(filled=True, size=50, clip=True),
    ]
    title = alt.TitleParams(
        "Perplexity on the evaluation split while training",
        subtitle=[f"One line a trial: strong if it is on the front, else faint.{note}"],
    )
    return alt.layer(*layers).properties(width=width, height=340, title=title)


# -- both --------------------------------------------------------------------------------------------------------------


def to_display(metric: str, value: float) -> float:
    """A value as an axis shows it: bytes in GiB."""
    return value / GIB if METRICS[metric].unit == "bytes" else float(value)


def axis_title(study: Study, objective: Objective) -> str:
    """The objective's label and unit; a CPU's memory is called what it is, the process' resident peak."""
    unit = {"bytes": "GiB", "fraction": "share of answers"}.get(objective.unit, objective.unit)
    resident = objective.metric == "peak_memory_bytes" and measures_process(study.records)
    label = "Peak resident memory of the process" if resident else objective.label
    return f"{label} ({unit})" if unit else label


def measures_process(records: Sequence[TrialRecord]) -> bool:
    """Whether `peak_memory_bytes` is a CPU process' resident peak, not a card's."""
    return any("process" in str(record.device.get("memory_source")) for record in records)


def _configuration(record: TrialRecord) -> Row:
    config = record.config
    return {
        "trial_id": record.trial_id,
        "precision": config.precision,
        "rank": config.rank,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "target_modules": config.target_set,
        "learning_rate": format_rate(config.learning_rate),
        "seed": config.seed,
    }


def _pair(record: TrialRecord, *objectives: Objective) -> tuple[float, float] | None:
    x, y = (record.measurements.get(objective.metric) for objective in objectives)
    if x is None or y is None or not (math.isfinite(x) and math.isfinite(y)):
        return None
    return x, y
