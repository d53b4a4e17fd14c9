"""What several figures share: a trial's row, axes in display units, the base model's level."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.figures.vega_lite import Spec, category, layer, mark, value
from analysis.load import Study
from analysis.wording import format_rate, format_value
from study.records.objectives import METRICS, Objective
from study.records.record import TrialRecord
from study.records.units import GIB

Row = dict[str, Any]

MOST_NUMBERS = 500  # rows of a table behind a figure: more would swell the report
REACH = 2.0  # what lies further away than this many times the greatest value would squeeze the points; it is left out
CONFIGURATION = (
    ("trial_id", "Trial"), ("precision", "Precision"), ("rank", "Rank"), ("lora_alpha", "Alpha"),
    ("lora_dropout", "Dropout"), ("target_modules", "Target modules"), ("learning_rate", "Learning rate"),
    ("seed", "Seed"),
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A chart, as Vega-Lite's specification, with what belongs beside it: title, caption, and the numbers as text."""

    name: str
    title: str
    caption: str
    chart: Spec
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def configuration_row(record: TrialRecord) -> Row:
    """What was sampled, flat, as CONFIGURATION names it."""
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


def base_levels(study: Study) -> tuple[Row, ...]:
    """The untuned base model's perplexity, one row for each precision it was measured in."""
    levels: dict[str, float] = {}
    for record in study.records:
        value = record.measurements["base_perplexity"]
        if value is not None and math.isfinite(value):
            levels.setdefault(record.config.precision, float(value))
    return tuple({"precision": precision, "perplexity": value} for precision, value in sorted(levels.items()))


def base_words(bases: Sequence[Mapping[str, Any]]) -> str:
    """`the untuned base model, 21.37 (bf16), 22.94 (nf4)`."""
    values = (f"{format_value('perplexity', base['perplexity'])} ({base['precision']})" for base in bases)
    return f"the untuned base model, {', '.join(values)}"


def base_layers(bases: Sequence[Mapping[str, Any]], y: Spec, hue: Spec, side: str) -> list[Spec]:
    """The base model's own perplexity as dashed rules, one label for all above the uppermost, at its `side` end."""
    if not bases:
        return []
    field = y["field"]
    rows = [{"precision": base["precision"], field: base["perplexity"]} for base in bases]
    highest = {field: max(row[field] for row in rows), "label": "untuned base"}
    look = {"align": side, "baseline": "bottom", "dx": 6 if side == "left" else -4, "dy": -4}
    x = value(0 if side == "left" else "width")
    return [
        layer(rows, {"y": y, "color": hue}, mark("rule", strokeDash=[6, 4], strokeWidth=1.5)),
        layer([highest], {"x": x, "y": y, "text": category("label")}, mark("text", **look)),
    ]


def to_display(metric: str, value: float) -> float:
    """A value as an axis shows it: bytes in GiB."""
    return value / GIB if METRICS[metric].unit == "bytes" else float(value)


def axis_title(study: Study, objective: Objective) -> str:
    """The objective's label, unit and direction; a CPU's memory is called what it is, the process' own."""
    unit = {"bytes": "GiB", "fraction": "share of answers"}.get(objective.unit, objective.unit)
    label = memory_label(study) if objective.metric == "peak_memory_bytes" else objective.label
    better = "lower is better" if objective.direction == "minimize" else "higher is better"
    return f"{label} ({unit}, {better})" if unit else f"{label} ({better})"


def memory_label(study: Study) -> str:
    """What `peak_memory_bytes` is in this study."""
    return "Peak process memory" if measures_process(study.records) else METRICS["peak_memory_bytes"].label


def measures_process(records: Sequence[TrialRecord]) -> bool:
    """Whether `peak_memory_bytes` is a CPU process' resident peak, not a card's."""
    return any("process" in str(record.device.get("memory_source")) for record in records)
