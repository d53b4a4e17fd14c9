"""Tables of trials, a row a record, which a click on a heading sorts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from analysis.host_memory import marked
from analysis.report.rendering import render
from analysis.wording import format_value
from study.records.record import TrialRecord


@dataclass(frozen=True)
class Cell:
    """A table cell: its text, what it sorts by (None sorts last), and HTML shown instead of the text, if any."""

    text: str
    value: float | str | None = None
    markup: Markup | None = None


@dataclass(frozen=True)
class Column:
    """A table column: its heading, the cell it makes of a record, whether it is right-aligned, and a hint."""

    heading: str
    cell: Callable[[TrialRecord], Cell]
    numeric: bool = True
    hint: str = ""


@dataclass(frozen=True)
class _Row:
    highlighted: bool
    pairs: list[tuple[Column, Cell]]


def measured(metric: str, heading: str, hint: str = "") -> Column:
    """A column of one measurement: a dash where it is missing, a mark where its time was spent on transfers too."""
    return Column(heading, lambda record: _measurement(record, metric), hint=hint)


def text_cell(text: str) -> Cell:
    """A cell that sorts by its text."""
    return Cell(text, text)


def _measurement(record: TrialRecord, metric: str) -> Cell:
    value = record.measurements.get(metric)
    return Cell(marked(record, metric, format_value(metric, value)), value)


def record_table(
    records: Sequence[TrialRecord], columns: Sequence[Column], highlighted: frozenset[str] = frozenset()
) -> Markup:
    """The table; rows whose trial is `highlighted` stand out."""
    rows = [
        _Row(record.trial_id in highlighted, [(column, column.cell(record)) for column in columns])
        for record in records
    ]
    return render("record_table.html", columns=columns, rows=rows)
