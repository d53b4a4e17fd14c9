"""The memory figure: predicted against measured peaks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from analysis.figures.parts import MOST_NUMBERS, Figure, Row, configuration_row, memory_label
from analysis.figures.style import NEUTRAL, TICKS, colour, rank_size, scale, shape, tooltips
from analysis.figures.vega_lite import Spec, chart, layer, mark, quantity
from analysis.load import Study
from analysis.wording import format_value
from study.records.units import GIB

METRIC = "peak_memory_bytes"
HEIGHT = 340  # pixels
FOOTPRINT = (("precision", "Precision"), ("rank", "Rank"), ("target_modules", "Target modules"))


def memory_points(study: Study) -> tuple[Row, ...]:
    """One row for each distinct pair of predicted and measured peak of each configuration's memory footprint.

    `predicted` and `measured` are in GiB, `error` is predicted / measured - 1; `trials` counts those that share the
    row: memory depends on neither learning rate nor seed. Trials without a prediction or a measurement are left out.
    """
    rows: dict[tuple[object, ...], Row] = {}
    for record in study.records:
        predicted, measured = record.predictions.get(METRIC), record.measurements[METRIC]
        if predicted is None or not measured or not (math.isfinite(predicted) and math.isfinite(measured)):
            continue
        names = configuration_row(record)
        key = (*(names[name] for name, _ in FOOTPRINT), predicted, measured)
        row = rows.setdefault(key, {name: names[name] for name, _ in FOOTPRINT} | {"trials": 0})
        row |= {"predicted": predicted / GIB, "measured": measured / GIB, "error": predicted / measured - 1}
        row["trials"] += 1
    return tuple(rows.values())


def memory_figure(study: Study, width: int | str = "container") -> Figure | None:
    """Measured over predicted peak memory; None where no trial has both."""
    points = memory_points(study)
    if not points:
        return None
    label = memory_label(study)
    title = f"{label}, predicted and measured"
    errors = [abs(point["error"]) for point in points]
    caption = (
        "Closer to the line is better: a mark on it was predicted exactly, one over it needs more than predicted. "
        f"Median error {100 * statistics.median(errors):.1f} %, worst {100 * max(errors):.1f} %, of "
        f"{len(points)} configuration{'s' * (len(points) != 1)} that differ in memory."
    )
    headings = (*(title for _, title in FOOTPRINT), "Predicted", "Measured", "Error", "Trials")
    whole = chart(memory_layers(points, label), title, width, HEIGHT)
    return Figure("memory", title, caption, whole, headings, tuple(map(_numbers, points[:MOST_NUMBERS])))


def memory_layers(points: Sequence[Row], label: str) -> list[Spec]:
    """The marks over the line on which prediction and measurement agree; both axes have one scale."""
    both = [point[name] for point in points for name in ("predicted", "measured")]
    position = {
        "x": quantity("predicted", f"Predicted {label.lower()} (GiB)", scale(both), tickCount=TICKS),
        "y": quantity("measured", f"Measured {label.lower()} (GiB)", scale(both)),
    }
    # The ends are in both layers' data, so that the two axes have the same domain.
    ends = [{"predicted": end, "measured": end} for end in (min(both), max(both))]
    shown = [{**point, **dict(zip(("p", "m", "e"), _numbers(point)[-4:-1], strict=True))} for point in points]
    told = tooltips([("p", "Predicted"), ("m", "Measured"), ("e", "Error"), *FOOTPRINT, ("trials", "Trials")])
    look = {"color": colour(points), "fill": colour(points), "shape": shape(points), "size": rank_size(points)}
    return [
        layer(ends, position, mark("line", color=NEUTRAL, strokeWidth=1.5)),
        layer(shown, {**position, **look, "tooltip": told}, mark("point", fillOpacity=0.5, strokeWidth=2)),
    ]


def _numbers(point: Row) -> tuple[str, ...]:
    shown = (format_value(METRIC, point[name] * GIB) for name in ("predicted", "measured"))
    error = f"{100 * point['error']:+.1f} %".replace("-", "−")
    return (*(str(point[name]) for name, _ in FOOTPRINT), *shown, error, str(point["trials"]))
