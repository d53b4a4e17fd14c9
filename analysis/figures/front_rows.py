"""Computes what the front figure shows: its points, the budget's line, and what did not fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.figures.parts import REACH, Row, configuration_row, to_display
from analysis.load import Study
from analysis.pareto import cost_index, front, non_dominated, quality_index
from analysis.wording import budget, format_value
from study.records.infeasible import needed_bytes
from study.records.objectives import METRICS, Objective
from study.records.record import TrialRecord

PEAK = "peak_memory_bytes"


def front_axes(objectives: Sequence[Objective]) -> tuple[Objective, Objective]:
    """The objectives across and upward: the first cost, and the first quality."""
    return objectives[cost_index(objectives)], objectives[quality_index(objectives)]


def front_points(study: Study) -> tuple[Row, ...]:
    """One row for each complete trial that has both shown values.

    `x` and `y` are as shown (bytes in GiB); `on_front` is decided by all objectives, `on_line` by the two shown alone:
    the step line joins those. The configuration, all objectives and what waited in host memory, as text, are for the
    tooltip.
    """
    across, upward = front_axes(study.objectives)
    members = {record.trial_id for record in front(study.records, study.objectives)}
    pairs = [(record, _pair(record, across, upward)) for record in study.records if record.status == "complete"]
    shown = [(record, pair) for record, pair in pairs if pair is not None]
    on_line = non_dominated([(across.to_minimize(x), upward.to_minimize(y)) for _, (x, y) in shown])
    return tuple(
        {
            **configuration_row(record),
            **{f"shown_{o.metric}": format_value(o.metric, record.measurements[o.metric]) for o in study.objectives},
            "x": to_display(across.metric, x),
            "y": to_display(upward.metric, y),
            "on_front": record.trial_id in members,
            "on_line": bool(on),
            "in_host_memory": record.offload.words,
        }
        for (record, (x, y)), on in zip(shown, on_line, strict=True)
    )


def budget_line(study: Study, points: Sequence[Mapping[str, Any]]) -> Row | None:
    """Where the budget lies across, with its label; None where it is too far from the points to be shown.

    A card's memory lies where an allocator's peak would just leave room for what complete trials needed beside theirs.
    """
    across, _ = front_axes(study.objectives)
    return _line(across, budget(study, across), "budget", points, bytes_beside_peak(study, across))


def infeasible_points(study: Study) -> tuple[Row, ...]:
    """One row for each infeasible trial whose asked bytes are known, `x` as shown; none where memory is not across."""
    across, _ = front_axes(study.objectives)
    if METRICS[across.metric].unit != "bytes":
        return ()
    rows = []
    for record in study.records:
        asked = (record.infeasible or {}).get("requested_bytes")
        if record.status == "infeasible" and asked is not None and math.isfinite(asked):
            words = {name: str((record.infeasible or {}).get(name) or "–") for name in ("moment", "source")}
            shown = {"asked": format_value(across.metric, asked), **words}
            x = to_display(across.metric, asked - _no_peak(record, across))
            rows.append({**configuration_row(record), **shown, "x": x})
    return tuple(rows)


def memory_edge(study: Study, points: Sequence[Mapping[str, Any]]) -> Row | None:
    """From where on trials did not fit: the study's memory limit, else the least room that one of them found.

    None without infeasible trials, where memory is not across, or where it is too far from the points to be shown.
    """
    if not infeasible_points(study):
        return None
    rooms = [(record.infeasible or {}).get("available_bytes") for record in study.records]
    found = [float(room) for room in rooms if room is not None and math.isfinite(room)]
    found = found if study.memory_limit is None else [study.memory_limit]
    across = front_axes(study.objectives)[0]
    return _line(across, min(found), "memory limit", points, bytes_beside_peak(study, across)) if found else None


def bytes_beside_peak(study: Study, across: Objective) -> float:
    """The most bytes that a complete trial needed beside its peak: fragments, and of a card CUDA's context."""
    if across.metric != PEAK:
        return 0.0
    of_process = study.memory_limit is not None
    pairs = [
        (needed_bytes(record.measurements, of_process), record.measurements.get(PEAK))
        for record in study.records
        if record.status == "complete"
    ]
    return max((needed - peak for needed, peak in pairs if needed is not None and peak is not None), default=0.0)


def _no_peak(record: TrialRecord, across: Objective) -> float:
    """The bytes of those asked for that are no part of an allocator's peak."""
    components = (record.infeasible or {}).get("components") or {}
    return sum(components.get(name, 0) for name in ("fragments", "context")) if across.metric == PEAK else 0


def _line(
    across: Objective, bound: float, name: str, points: Sequence[Mapping[str, Any]], beside: float = 0.0
) -> Row | None:
    row: Row = {"x": to_display(across.metric, bound - beside), "label": f"{name} {format_value(across.metric, bound)}"}
    return row if row["x"] > 0 and near_points([row], points) else None


def near_points(rows: Sequence[Row], points: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Returns those rows that lie across no further than the figure reaches: `REACH` times its dearest point."""
    reach = REACH * max((point["x"] for point in points), default=0.0)
    return [row for row in rows if points and row["x"] <= reach]


def _pair(record: TrialRecord, *objectives: Objective) -> tuple[float, float] | None:
    x, y = (record.measurements.get(objective.metric) for objective in objectives)
    if x is None or y is None or not (math.isfinite(x) and math.isfinite(y)):
        return None
    return x, y
