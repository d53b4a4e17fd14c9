"""Reads rows from JSON Lines files and JSON lists, a line at a time, and says what a file is that holds none."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainables.dataset.reading.forms import many_lines_form
from trainables.dataset.reading.kinds import HEAD_BYTES, Kind, folder_kind, kind_of
from trainables.guarded_files import MIB, FileRefusedError, open_regular, parse_json, read_lines, read_text
from trainables.shown_values import SHOWN_PATH_CHARACTERS, shortened

MOST_LINE_BYTES = 16 * MIB  # a row is cut at 2^20 tokens, which are rarely more than 8 MiB
MOST_LIST_BYTES = 128 * MIB  # of a file that is one JSON value, which is held whole
MOST_BYTES = 1024 * MIB  # of a file of rows
MOST_ROWS = 2_000_000
FEW_KEYS = 16
SHARE = Kind("", "Take a share of its rows, such as: `shuf -n 100000 {file} > {out}`.")
LINES = Kind("", "Write it as JSON Lines: `jq -c '.[]' {file} > {out}`.")


class DatasetError(ValueError):
    """The data cannot be used; the message says rule, value and remedy, one fault a line."""


@dataclass(frozen=True)
class RowFault:
    """What is wrong with a row: the rule it breaks, what it is instead, the remedy, and the row's own value.

    Faults of one kind are equal: the value does not count.
    """

    rule: str
    found: str
    remedy: str
    example: str = field(default="", compare=False)


def read_json(path: Path, key: str, remedy: str = "") -> Any:
    """Reads the file's one JSON value; `key` is the setting that named it, for the message, as is the `remedy`.

    Raises DatasetError where the file is missing, no regular file, too large, or not JSON in UTF-8.
    """
    with _refusals(path, key):
        if _refuse_foreign(path, key, remedy) > MOST_LIST_BYTES:
            rule = f"{key} must hold at most {MOST_LIST_BYTES // MIB} MiB where it is one JSON value"
            raise DatasetError(f"{rule}; {path} holds more. {remedy or LINES.remedy_for(path)}")
        text = read_text(path, MOST_LIST_BYTES)
    try:
        return parse_json(text)
    except ValueError as error:
        remedy = remedy or "Correct the file."
        raise DatasetError(f"{key} must hold JSON; {path} does not: {error}. {remedy}") from None


def read_rows(path: Path, key: str) -> Iterator[tuple[str, Any]]:
    """Yields the rows of a JSON Lines file, or of a file of one JSON list, as pairs of (number, row), from "1".

    In a JSON Lines file the number is the line's, and a line that is not JSON is a RowFault. Raises DatasetError as
    `read_json` does, and where there are more rows or bytes than a study may have.
    """
    with _refusals(path, key):
        _refuse_foreign(path, key)
        first = _first_line(path)
    if first.startswith(b"["):
        rows = read_json(path, key)
        assert isinstance(rows, list)  # what starts with [ and is JSON
        yield from ((str(number), row) for number, row in enumerate(rows, start=1))
        return
    _refuse_many_lines(first, path, key)
    with _refusals(path, key):
        yield from _rows_of_lines(path, key)


def _rows_of_lines(path: Path, key: str) -> Iterator[tuple[str, Any]]:
    number, n_rows, n_bytes = 0, 0, 0
    for ended in read_lines(path, MOST_LINE_BYTES):
        n_bytes += len(ended)
        # A carriage return ends a line too. Not splitlines(): U+2028 and the like may stand inside a JSON string.
        for line in ended.removesuffix(b"\n").removesuffix(b"\r").split(b"\r"):
            number += 1
            content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if content and not content.isspace():
                n_rows += 1
                yield str(number), _row(content)
        if n_rows > MOST_ROWS:
            raise _too_large(path, key, f"{MOST_ROWS:,} rows")
        if n_bytes > MOST_BYTES:
            raise _too_large(path, key, f"{MOST_BYTES // MIB:,} MiB")


def _row(line: bytes) -> Any:
    try:
        text = line.decode("utf-8")
        row = parse_json(text)
    except UnicodeDecodeError as error:
        remedy = "Save the file as UTF-8, such as with: `iconv -f latin1 -t UTF-8`."
        return RowFault("every line must be text in UTF-8", "it is not", remedy, f"at byte {error.start + 1} of it")
    except ValueError as error:
        remedy = "Correct the line; json.dumps, or another JSON library, writes it right."
        return RowFault("every line must be one JSON object", "it is not JSON", remedy, shortened(str(error)))
    twice = _twice(text, row)
    if twice is not None:
        return RowFault("a row may have each key once", f"`{twice}` is there twice", "Keep one of them.")
    return row


def _twice(text: str, row: Any) -> str | None:
    """A key that a row's object has twice, of which JSON readers silently take the last; counted where it may be."""
    few = isinstance(row, dict) and len(row) <= FEW_KEYS  # of many keys, counting each would take longer
    if not isinstance(row, dict) or (few and all(text.count(f'"{key}"') < 2 for key in row)):
        return None
    outermost: list[tuple[str, Any]] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        outermost[:] = pairs  # the outermost object is the last to end
        return dict(pairs)

    json.loads(text, object_pairs_hook=note)
    return next((key for key, number in Counter(key for key, _ in outermost).items() if number > 1), None)


@contextmanager
def _refusals(path: Path, key: str) -> Iterator[None]:
    """Says in the data's own words why a file cannot be read."""
    try:
        yield
    except FileRefusedError as error:
        kind = folder_kind(path) if os.path.isdir(path) else None
        if kind is not None:
            raise DatasetError(_foreign(path, key, kind.name, kind.remedy_for(path))) from None
        rule = f"{key} {error.rule.removeprefix('It ')}" if error.rule.startswith("It ") else f"{key}: {error.rule}"
        raise DatasetError(f"{rule}; {error.found}. {error.remedy}") from None
    except FileNotFoundError:
        remedy = "Check the path; a relative one starts at the study file's folder."
        raise DatasetError(f"{key} must name a file that is there; {path} is not. {remedy}") from None
    except (OSError, ValueError) as error:
        if isinstance(error, DatasetError):
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        raise DatasetError(
            f"{key} must name a readable file; {shortened(str(path), SHOWN_PATH_CHARACTERS)}: {reason}. "
            "Name a readable file."
        ) from None


def _refuse_foreign(path: Path, key: str, remedy: str = "") -> int:
    """Returns the file's size in bytes; raises DatasetError where it is no JSON text, or too large."""
    with open_regular(path) as file:
        head = file.read(HEAD_BYTES)
        size = os.fstat(file.fileno()).st_size
    kind = kind_of(head)
    if kind is not None:
        remedy = kind.remedy_for(path) if kind.packs or not remedy else remedy
        raise DatasetError(_foreign(path, key, kind.name, remedy))
    if size > MOST_BYTES:
        raise _too_large(path, key, f"{MOST_BYTES // MIB:,} MiB")
    return size


def _foreign(path: Path, key: str, name: str, remedy: str) -> str:
    return f"{key} must hold rows as JSON, in UTF-8; {path} is {name}. {remedy}"


def _too_large(path: Path, key: str, most: str) -> DatasetError:
    return DatasetError(f"{key} must hold at most {most}; {path} holds more. {SHARE.remedy_for(path)}")


def _first_line(path: Path) -> bytes:
    """The first line that is not blank, without spaces around it, a long one cut; empty where there is none."""
    with open_regular(path) as file:
        while line := file.readline(MOST_LINE_BYTES):
            content = line.removeprefix(b"\xef\xbb\xbf").strip()
            if content:
                return content.split(b"\r")[0]
    return b""


def _refuse_many_lines(first: bytes, path: Path, key: str) -> None:
    """Refuses a file whose first line begins an object that a later line ends: rows must lie on a line each."""
    text = first.decode("utf-8", "replace")
    try:
        parse_json(text)
        return
    except json.JSONDecodeError as error:
        if not text.startswith("{") or error.pos < len(text):
            return
    except ValueError:
        return
    if os.stat(path).st_size > MOST_LIST_BYTES:
        return
    with _refusals(path, key):
        form = many_lines_form(read_text(path, MOST_LIST_BYTES))
    if form is not None:
        raise DatasetError(_foreign(path, key, form.name, form.remedy_for(path)))
