"""The lines of `results.jsonl` as records: whole, torn, or no record at all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from study.errors import printable
from study.json_checks import fault
from study.records.layout import adapter_place
from study.records.record import TrialRecord
from study.records.rules import is_later
from trainables.guarded_files import MIB, parse_json

RECORD_START = b'{"study": '  # as `TrialRecord.to_json` writes it
MOST_LINE_BYTES = 16 * MIB  # 100,000 evaluation rows take 3
MOST_PARTS = 200_000  # lists and objects of a line: small ones take a hundred times their text in memory
MOST_LINES = 1_000_000
TRIAL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)  # files and folders are named so
_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Line:
    """A line as it was found: its place in the file, in bytes, and the record in it.

    What stands before `record_start` is no record, and `fault` says why; without a record that is all of the line.
    """

    number: int  # from 1
    start: int
    record_start: int
    end: int  # its line feed left out
    record: TrialRecord | None
    ended: bool  # by a line feed
    fault: str = ""
    torn: bool = False  # cut, and not wrong
    later: bool = False  # a later version of LoRA Frontier may have written it


@dataclass(frozen=True)
class _Found:
    record: TrialRecord | None
    start: int = 0
    fault: str = ""
    torn: bool = False
    later: bool = False


def read_lines(file: BinaryIO) -> Iterator[Line]:
    """Yields the lines that are not blank, in their order, one at a time in memory.

    Only line feeds end a line: texts from models hold other line separators (U+2028), which JSON leaves as they are. A
    line that was never ended may stand before a whole record on the same line.
    """
    number = start = 0
    while content := file.readline(MOST_LINE_BYTES + 1):
        number += 1
        length, ended = len(content), content.endswith(b"\n")
        if length > MOST_LINE_BYTES:
            length, ended = _skip(file, content)
            found = _Found(None, fault=f"it must hold at most {MOST_LINE_BYTES // MIB} MiB")
        elif content.isspace():
            start += length
            continue
        else:
            found = _find(content.rstrip(b"\r\n"))
        end = start + length - ended
        place = start + found.start if found.record else end
        yield Line(number, start, place, end, found.record, ended, found.fault, found.torn, found.later)
        start += length


def _skip(file: BinaryIO, content: bytes) -> tuple[int, bool]:
    """Reads on to the end of the line; returns its length, and whether a line feed ended it."""
    length = len(content)
    while content and not content.endswith(b"\n"):
        content = file.readline(MIB)
        length += len(content)
    return length, content.endswith(b"\n")


def _find(line: bytes) -> _Found:
    """The record that a line holds, alone or behind the beginning of another."""
    values, wrong = _json(line)
    if not wrong:
        if isinstance(values, dict):
            return _record(values, line)
        return _Found(None, fault=f"it must be an object; it is {type(values).__name__}")
    start = line.rfind(RECORD_START)
    if start > 0:
        values, still_wrong = _json(line[start:])
        if not still_wrong:
            found = _record(values, line[start:])
            return _Found(found.record, start, wrong if found.record else found.fault, found.record is not None)
    return _Found(None, fault=wrong, torn=True)


def _json(text: bytes) -> tuple[Any, str]:
    """The value, or why there is none."""
    if text.count(b"[") + text.count(b"{") > MOST_PARTS:
        return None, f"it must hold at most {MOST_PARTS:,} lists and objects"
    try:
        values = parse_json(text.decode("utf-8"))
        # Half a surrogate pair, for which UTF-8 has no form, becomes a question mark here as it does in `append`.
        return (_in_utf8(values) if _HALF_PAIR.search(text) else values), ""
    except ValueError as error:  # JSON's and UTF-8's errors are of this kind
        return None, f"it must be JSON in UTF-8: {printable(str(error), 200)}"


def _in_utf8(values: Any) -> Any:
    return parse_json(json.dumps(values, ensure_ascii=False).encode("utf-8", "replace"))


def _record(values: dict[str, Any], text: bytes) -> _Found:
    try:
        record = TrialRecord.from_values(values)
    except ValueError as error:
        return _Found(None, fault=str(error), later=is_later(values.get("schema_version")))
    return _Found(None, fault=wrong) if (wrong := _misplaced(record)) else _Found(record)


def _misplaced(record: TrialRecord) -> str:
    """What is wrong with the names of the trial's files, which must lie in the study's directory."""
    if not TRIAL_ID.fullmatch(record.trial_id):
        return fault("trial_id", "a plain file name of letters, digits, `.`, `_` and `-`", record.trial_id)
    place = adapter_place(record.trial_id)
    return "" if record.adapter in (None, place) else fault("adapter", f"null or {place}", record.adapter)
