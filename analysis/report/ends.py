"""Words what happened to a trial that did not complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.report.record_table import Cell
from analysis.report.rendering import render
from analysis.wording import format_value, shorten
from study.records.record import TrialRecord

ERROR_SHOWN = 4000  # characters of an error's end
REASON_SHOWN = 400
COMPONENT_SHARE = 0.02  # of what was asked for, from which a component is told


@dataclass(frozen=True)
class End:
    """One line on a trial's end, and its whole error where that says more."""

    text: str
    error: str | None = None


def end_of(record: TrialRecord) -> End:
    """The reason, what did not fit, and the error's last line, each once; the end of a long error is kept."""
    lines = [record.reason] if record.reason else []
    if record.infeasible:
        lines.append(infeasible_words(record.infeasible))
    error = (record.error or "").strip()
    last = error.splitlines()[-1] if error else ""
    if last and last not in lines:
        lines.append(last)
    text = shorten("; ".join(lines), REASON_SHOWN)
    if error == last and len(error) <= REASON_SHOWN:
        return End(text)
    return End(text, error if len(error) <= ERROR_SHOWN else f"… {error[-ERROR_SHOWN:]}")


def end_cell(record: TrialRecord) -> Cell:
    """A trial's end in a table; the whole error is folded under the line."""
    end = end_of(record)
    return Cell(end.text, end.text or None, render("end.html", end=end))


def infeasible_words(infeasible: Mapping[str, Any]) -> str:
    """What a record's facts add to its reason: the moment that needs most, and of what; or what was asked for there.

    The reason of a predicted end holds the bytes already (`study.records.infeasible.does_not_fit`).
    """
    moment = infeasible.get("moment")
    if infeasible.get("source") == "predicted":
        parts = infeasible.get("components")
        of = f" ({_component_words(parts)})" if isinstance(parts, dict) and parts else ""
        return f"most is needed at {str(moment or 'its peak').replace('_', ' ')}{of}"
    asked = format_value("peak_memory_bytes", infeasible.get("requested_bytes"))
    there = format_value("peak_memory_bytes", infeasible.get("available_bytes"))
    when = f"while {moment}" if moment else "at an unknown moment"
    return f"{when} it asked for {asked}, and {there} were free"


def _component_words(parts: Mapping[str, Any]) -> str:
    """The components that matter, the largest first: `base linears 13.00 GiB, embedding and head 1.96 GiB`."""
    sizes = {name: float(size) for name, size in parts.items() if isinstance(size, int | float)}
    least = COMPONENT_SHARE * sum(sizes.values())
    shown = sorted(((size, name) for name, size in sizes.items() if size >= least), reverse=True)
    return ", ".join(f"{name.replace('_', ' ')} {format_value('peak_memory_bytes', size)}" for size, name in shown)
