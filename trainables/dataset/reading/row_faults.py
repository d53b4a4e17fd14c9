"""Checks rows, and says each kind of fault once, with how many rows have it and the first of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from trainables.dataset.files import DatasetError, RowFault
from trainables.shown_values import shown

ROWS_NAMED = 10  # of each kind of fault
KINDS_SHOWN = 10

Read = TypeVar("Read")


@dataclass
class _Rows:
    """The rows that have one kind of fault: their number, the first ten, and the first one's fault."""

    fault: RowFault
    number: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, where: str) -> None:
        self.number += 1
        if len(self.first) < ROWS_NAMED:
            self.first.append(where)

    def __str__(self) -> str:
        fault, example = self.fault, f" ({self.fault.example})" if self.fault.example else ""
        if self.number == 1:
            return f"row {self.first[0]}: {fault.rule}; {fault.found}{example}. {fault.remedy}"
        more = self.number - len(self.first)
        rows = f"rows {', '.join(self.first)}" + (f" and {more:,} more" if more else "")
        of_first = f" (row {self.first[0]}: {fault.example})" if fault.example else ""
        return f"{rows}: {fault.rule}; {fault.found}{of_first}. {fault.remedy}"


def checked(
    source: str,
    rows: Iterable[tuple[str, Any]],
    faults_of: Callable[[Any], Sequence[RowFault]],
    example: Callable[[str, Any], Read],
) -> list[Read]:
    """Returns `example(name, row)` of every row, which are read one at a time.

    Raises DatasetError with every kind of fault, or where there is no row. A row that could not be read is a RowFault.
    """
    read: list[Read] = []
    kinds: dict[RowFault, _Rows] = {}
    for where, row in rows:
        faults = [row] if isinstance(row, RowFault) else faults_of(row)
        for fault in faults:
            kinds.setdefault(fault, _Rows(fault)).add(where)
        if not kinds:
            read.append(example(where, row))
    if kinds:
        raise DatasetError("\n".join(_messages(source, list(kinds.values()))))
    if not read:
        raise DatasetError(
            f"A dataset must hold at least one row; {source} holds none. Add rows, or name another file."
        )
    return read


def _messages(source: str, kinds: Sequence[_Rows]) -> list[str]:
    more = len(kinds) - KINDS_SHOWN
    shown_kinds = [f"{source}, {rows}" for rows in kinds[:KINDS_SHOWN]]
    return [*shown_kinds, *([f"... and {more} more kinds of fault"] if more > 0 else [])]


def text_faults(row: Any, names: Sequence[str]) -> list[RowFault]:
    """Returns what keeps `row` from being an object with a text under each of `names`."""
    if not isinstance(row, Mapping):
        found = f"it is {type_name(row)}"
        return [RowFault("every row must be a JSON object", found, "Write it as an object.", shown(row))]
    faults = [_text_fault(row, name) for name in names]
    return [fault for fault in faults if fault is not None]


def _text_fault(row: Mapping[str, Any], name: str) -> RowFault | None:
    if name not in row:
        keys = ", ".join(list(map(str, row))[:20]) or "none"
        return RowFault(f"every row needs `{name}`", "it is not there", f"Add `{name}`.", f"the keys are: {keys[:200]}")
    value = row[name]
    if isinstance(value, str):
        return None if is_unicode(value) else RowFault(
            f"`{name}` must be valid Unicode", "it holds half of a surrogate pair", "Remove that."
        )  # fmt: skip
    missing = value is None or value != value
    if missing:
        found = "it is null" if value is None else "it is NaN"
        remedy = "Write the text that belongs there, or remove the row; a table's empty cells become null or NaN."
        return RowFault(f"`{name}` must be text", found, remedy)
    remedy = "Join it to one text." if isinstance(value, (list, dict)) else "Write it as text, in quotes."
    return RowFault(f"`{name}` must be text", f"it is {type_name(value)}", remedy, shown(value))


def type_name(value: Any) -> str:
    """Returns what a JSON value is, as words in a message: `null`, `a list`, `a number`."""
    if value is None:
        return "null"
    names = {bool: "true or false", str: "a text", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")


def is_unicode(text: str) -> bool:
    """Whether the text can be encoded (JSON may smuggle in lone surrogates, which no tokenizer takes)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
