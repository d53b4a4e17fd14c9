"""Reads rows from JSON and JSON Lines files, and says what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

FAULTS_SHOWN = 10

Read = TypeVar("Read")


class DatasetError(ValueError):
    """The data cannot be used; the message says rule, value and remedy, one fault a line."""


def read_text(path: Path, key: str) -> str:
    """Reads the file's UTF-8 text, without a byte order mark; `key` is the setting that named it, for the message.

    Raises DatasetError where the file is missing, unreadable or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        remedy = "Check the path; a relative one starts at the study file's folder."
        raise DatasetError(f"{key} must name a file that is there; {path} is not. {remedy}") from None
    except UnicodeDecodeError as error:
        remedy = "Save it as UTF-8."
        raise DatasetError(f"{key} must be UTF-8; {path} is not, at byte {error.start}. {remedy}") from None
    except OSError as error:
        remedy = "Name a readable file."
        raise DatasetError(f"{key} must name a readable file; {path}: {error.strerror}. {remedy}") from None


def read_json(path: Path, key: str) -> Any:
    """Reads the file's one JSON value. Raises DatasetError as `read_text` does, and where it is not JSON."""
    text = read_text(path, key)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{key} must hold JSON; {path} does not: {error}. Correct the file.") from None


def read_rows(path: Path, key: str) -> list[tuple[str, Any]]:
    """Reads a JSON Lines file, or a file of one JSON list, as pairs of (name, row); names are "row 17", counted from 1.

    In a JSON Lines file the number is the line's. Raises DatasetError with every line that is not JSON.
    """
    text = read_text(path, key)
    if text.lstrip().startswith("["):
        return [(f"row {number}", row) for number, row in enumerate(read_json(path, key), start=1)]
    # Not splitlines(): it also splits at U+2028 and the like, which may stand inside a JSON string.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    rows, faults = [], []
    for number, line in lines:
        try:
            rows.append((f"row {number}", json.loads(line)))
        except (ValueError, RecursionError) as error:
            faults.append(
                f"{key}: {path}, row {number}: every line must be one JSON object; {error}. Correct the line."
            )
    raise_faults(faults)
    return rows


def raise_faults(faults: Sequence[str]) -> None:
    """Raises the faults as one DatasetError, the first ten in full; does nothing where there are none."""
    if not faults:
        return
    more = len(faults) - FAULTS_SHOWN
    raise DatasetError("\n".join([*faults[:FAULTS_SHOWN], *([f"... and {more} more faults"] if more > 0 else [])]))


def text_faults(row: Any, names: Sequence[str]) -> list[str]:
    """Returns what keeps `row` from being an object with a text under each of `names`, each fault with its remedy."""
    if not isinstance(row, Mapping):
        return [f"every row must be a JSON object; this one is {shown(row)}. Write it as an object."]
    faults = []
    for name in names:
        if name not in row:
            keys = ", ".join(map(str, row)) or "none"
            faults.append(f"every row needs `{name}`; this one's keys are: {keys}. Add `{name}`.")
        elif not isinstance(row[name], str):
            faults.append(f"`{name}` must be text; it is {shown(row[name])}. Put it in quotes.")
        elif not is_unicode(row[name]):
            faults.append(f"`{name}` must be valid Unicode; it holds half of a surrogate pair. Remove that.")
    return faults


def checked(
    source: str,
    rows: Iterable[tuple[str, Any]],
    faults_of: Callable[[Any], Sequence[str]],
    example: Callable[[str, Any], Read],
) -> list[Read]:
    """Returns `example(name, row)` of every row; raises DatasetError with all faults, or where there is no row."""
    rows = list(rows)
    if not rows:
        raise DatasetError(
            f"A dataset must hold at least one row; {source} holds none. Add rows, or name another file."
        )
    places = ((where if where.startswith("row") else f"row {where}", row) for where, row in rows)
    raise_faults([f"{source}, {where}: {fault}" for where, row in places for fault in faults_of(row)])
    return [example(where, row) for where, row in rows]


def shown(value: Any) -> str:
    """Returns the value as text, short enough for a message."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def is_unicode(text: str) -> bool:
    """Whether the text can be encoded (JSON may smuggle in lone surrogates, which no tokenizer takes)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
