"""The training curves: perplexity on the evaluation split over the optimizer step."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from analysis.figures.parts import CONFIGURATION, Figure, Row, base_layers, base_levels, base_words, configuration_row
from analysis.figures.style import TICKS, colour, emphasis, scale, tooltips
from analysis.figures.vega_lite import Spec, category, chart, layer, mark, quantity
from analysis.load import Study
from analysis.pareto import front
from analysis.wording import DASH, format_value

CUT = 20.0  # curves are cut off above this many times their median: diverging trials would flatten the others
MOST_CURVES = 60  # more lines cannot be told apart, and would swell the report
MOST_STEPS = 40  # of a table behind the figure
HEIGHT = 340  # pixels


def curve_points(study: Study) -> tuple[Row, ...]:
    """One row for each evaluation of each trial with a finite perplexity, by step; a step's last write wins.

    Step 0, where it was not evaluated, is the untuned base model's: LoRA's update is zero there.
    """
    members = {record.trial_id for record in front(study.records, study.objectives)}
    bases = {base["precision"]: base["perplexity"] for base in base_levels(study)}  # not all have their own
    rows: list[Row] = []
    for record in study.records:
        by_step = {point["step"]: point.get("perplexity") for point in record.curve}
        if by_step:
            by_step.setdefault(0, bases.get(record.config.precision))
        finite = {step: value for step, value in by_step.items() if value is not None and math.isfinite(value)}
        same = {**configuration_row(record), "status": record.status, "on_front": record.trial_id in members}
        rows += [{"step": step, "perplexity": finite[step], **same} for step in sorted(finite)]
    return tuple(rows)


def shown_curves(points: Sequence[Row], most: int = MOST_CURVES) -> tuple[Row, ...]:
    """The rows of at most so many trials: the front's first, then those that ended lowest; their order stays."""
    last = {point["trial_id"]: (not point["on_front"], point["perplexity"]) for point in points}
    kept = set(sorted(last, key=lambda trial_id: last[trial_id])[:most])
    return tuple(point for point in points if point["trial_id"] in kept)


def curves_figure(study: Study, width: int | str = "container") -> Figure | None:
    """Perplexity over the optimizer step, a line a trial; None where no evaluation was recorded while training."""
    everything = curve_points(study)
    if not everything:
        return None
    points = shown_curves(everything)
    values = [point["perplexity"] for point in points]
    top = CUT * statistics.median(values)
    ceiling = top if max(values) > top else None
    trials, shown = ({point["trial_id"] for point in rows} for rows in (everything, points))
    title = "Perplexity on the evaluation split while training"
    caption = "One line a trial, strong if it is on the front. A line that still falls would gain from more steps."
    if base_levels(study):
        caption += f" Dashed: {base_words(base_levels(study))}."
    if len(shown) < len(trials):
        caption += f" {len(shown)} of {len(trials)} trials are shown: the front’s, then those that ended lowest."
    if ceiling is not None:
        caption += f" Values above {format_value('perplexity', ceiling)} are cut off."
    whole = chart(_layers(study, points, ceiling), title, width, HEIGHT)
    return Figure("curves", title, caption, whole, *_numbers(points))


def _layers(study: Study, points: Sequence[Row], ceiling: float | None) -> list[Spec]:
    bases = [base for base in base_levels(study) if ceiling is None or base["perplexity"] <= ceiling]
    heights = scale([row["perplexity"] for row in (*points, *bases)], ceiling)
    y = quantity("perplexity", "Evaluation perplexity (lower is better)", heights)
    hue = colour([*points, *bases])
    steps = {"zero": False, "nice": False, "padding": 10}
    encoding = {
        "x": quantity("step", "Optimizer step", steps, tickMinStep=1, format="d", tickCount=TICKS),
        "y": y,
        "color": hue,
        "opacity": emphasis(0.45),
        "detail": category("trial_id"),
        "tooltip": tooltips([("step", "Step"), ("perplexity", "Perplexity"), ("status", "Status"), *CONFIGURATION]),
    }
    is_cut = ceiling is not None
    marks = mark("line", clip=is_cut, strokeWidth=2), mark("point", filled=True, size=50, clip=is_cut)
    front_on_top = sorted(points, key=lambda point: bool(point["on_front"]))
    return [layer(front_on_top, encoding, *marks), *base_layers(bases, y, hue, "right")]


def _numbers(points: Sequence[Row]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """The table behind: a row a trial, a column a step; of many steps every so many, and the last."""
    steps = sorted({point["step"] for point in points})
    every = -(-len(steps) // MOST_STEPS)
    kept = [step for i, step in enumerate(reversed(steps)) if i % every == 0][::-1]
    by_trial: dict[str, dict[int, float]] = {}
    for point in points:
        by_trial.setdefault(point["trial_id"], {})[point["step"]] = point["perplexity"]
    rows = tuple(
        (trial_id, *(format_value("perplexity", values.get(step)) if step in values else DASH for step in kept))
        for trial_id, values in by_trial.items()
    )
    return ("trial", *(f"step {step:g}" for step in kept)), rows
