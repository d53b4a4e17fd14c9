"""The lines of `results.jsonl` as records, whole or torn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from study.records.record import TrialRecord

RECORD_START = b'{"study": '  # as `TrialRecord.to_json` writes it


class LineError(ValueError):
    """A whole line that is no trial's record."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"line {number}: {reason}")
        self.number, self.reason = number, reason


@dataclass(frozen=True)
class Line:
    """A line as it was found: what is torn of it and why it is no JSON, and the whole record that may follow."""

    number: int  # from 1
    torn: bytes
    whole: bytes  # the record's JSON
    record: TrialRecord | None
    ended: bool  # by a line feed
    fault: str = ""


def read_lines(data: bytes) -> Iterator[Line]:
    """The lines that are not blank, in their order. Raises LineError for a whole line that is no record.

    Only line feeds end a line: texts from models hold other line separators (U+2028), which JSON leaves as they are. A
    line that was never ended may stand before a whole record on the same line.
    """
    parts = data.split(b"\n")  # a file that ends with a line feed has an empty last part
    for number, part in enumerate(parts, 1):
        if part.strip():
            yield _read_line(part, number, number < len(parts))


def _read_line(line: bytes, number: int, ended: bool) -> Line:
    start, fault = 0, ""
    while start >= 0:
        values, wrong = _json(line[start:], number)
        if isinstance(values, dict):
            return Line(number, line[:start], line[start:], _record(line[start:], number), ended, fault)
        fault = fault or wrong or f"it holds {type(values).__name__}"
        start = line.find(RECORD_START, start + 1) if wrong else -1
    return Line(number, line, b"", None, ended, fault)


def _json(text: bytes, number: int) -> tuple[object, str]:
    """The value, or why there is none."""
    try:
        return json.loads(text.decode("utf-8")), ""
    except ValueError as error:  # JSON's and UTF-8's errors are of this kind
        return None, str(error)
    except RecursionError as error:
        raise LineError(number, str(error)) from error


def _record(text: bytes, number: int) -> TrialRecord:
    try:
        record = TrialRecord.from_json(text.decode("utf-8"))
        _check_numbers(record)
    except KeyError as error:
        raise LineError(number, f"it has no {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise LineError(number, str(error)) from error
    return record


def _check_numbers(record: TrialRecord) -> None:
    predicted = {"predicted peak_memory_bytes": record.predictions.get("peak_memory_bytes")}
    for name, value in {**record.measurements, **predicted}.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{name} must be a number or null; it is {value!r}")
