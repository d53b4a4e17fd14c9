"""Small pieces of HTML; what they are given as text is escaped here."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.wording import DASH, format_value
from study.records.record import TrialRecord


@dataclass(frozen=True)
class Cell:
    """A table cell: its text, what it sorts by (None sorts last), and HTML shown instead of the text, if any."""

    text: str
    value: float | str | None = None
    markup: str | None = None


@dataclass(frozen=True)
class Column:
    """A table column: its heading, the cell it makes of a record, whether it is right-aligned, and a hint."""

    heading: str
    cell: Callable[[TrialRecord], Cell]
    numeric: bool = True
    hint: str = ""


def escape(text: object) -> str:
    """Text as HTML, safe in elements and attributes."""
    return html.escape(str(text), quote=True)


def note(text: str) -> str:
    """A quiet sentence."""
    return f'<p class="quiet">{escape(text)}</p>'


def script_json(value: Any) -> str:
    """JSON that may stand inside a script element: no `<` can end it or begin a comment."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def measured(metric: str, heading: str, hint: str = "") -> Column:
    """A column of one measurement, a dash where it is missing."""
    return Column(heading, lambda record: _measurement(record, metric), hint=hint)


def _measurement(record: TrialRecord, metric: str) -> Cell:
    value = record.measurements.get(metric)
    return Cell(format_value(metric, value), value)


def record_table(
    records: Sequence[TrialRecord], columns: Sequence[Column], highlighted: frozenset[str] = frozenset()
) -> str:
    """A table that a click on a heading sorts; rows whose trial is `highlighted` stand out."""
    heads = "".join(_heading(column) for column in columns)
    rows = "\n".join(_row(record, columns, record.trial_id in highlighted) for record in records)
    head = f"<thead><tr>{heads}</tr></thead>"
    return f'<div class="scroll"><table class="sortable">{head}<tbody>\n{rows}\n</tbody></table></div>'


def _heading(column: Column) -> str:
    kind = ' class="number"' if column.numeric else ""
    hint = f' title="{escape(column.hint)}"' if column.hint else ""
    return f'<th scope="col" aria-sort="none"{kind}{hint}><button type="button">{escape(column.heading)}</button></th>'


def _row(record: TrialRecord, columns: Sequence[Column], highlighted: bool) -> str:
    cells = "".join(_data(column, column.cell(record)) for column in columns)
    kind = ' class="member"' if highlighted else ""
    return f"<tr{kind}>{cells}</tr>"


def _data(column: Column, cell: Cell) -> str:
    kind = ' class="number"' if column.numeric else ""
    key = "" if cell.value is None else f' data-value="{escape(cell.value)}"'
    return f"<td{kind}{key}>{escape(cell.text) if cell.markup is None else cell.markup}</td>"


def definitions(pairs: Iterable[tuple[str, Any]]) -> str:
    """Names and values side by side; nested mappings become lists of their own."""
    rows = "".join(f"<dt>{escape(_words(name))}</dt><dd>{_value(value)}</dd>" for name, value in pairs)
    return f"<dl>{rows}</dl>"


def _words(name: str) -> str:
    return str(name).replace("_", " ")


def _value(value: Any) -> str:
    if value is None or value in ({}, [], ()):
        return DASH
    if isinstance(value, Mapping):
        return definitions(value.items())
    if isinstance(value, list | tuple):
        nested = any(isinstance(item, Mapping | list | tuple) for item in value)
        return "".join(map(_value, value)) if nested else escape(", ".join(map(str, value)))
    return ("yes" if value else "no") if isinstance(value, bool) else escape(value)


def grid(headings: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 0) -> str:
    """A plain table; each row begins with its heading, then so many columns of texts, the others are numbers."""
    heads = "".join(_grid_cell('th scope="col"', text, i, texts) for i, text in enumerate(headings))
    body = "".join(_grid_row(row, texts) for row in rows)
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def _grid_row(texts_and_numbers: Sequence[str], texts: int) -> str:
    first, *others = texts_and_numbers
    cells = "".join(_grid_cell("td", text, i, texts) for i, text in enumerate(others, 1))
    return f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>'


def _grid_cell(tag: str, text: str, position: int, texts: int) -> str:
    kind = ' class="number"' if position > texts else ""
    return f"<{tag}{kind}>{escape(text)}</{tag.split()[0]}>"
