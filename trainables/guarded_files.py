"""Reads files that somebody else may have changed: regular files only, of bounded size, JSON of bounded depth."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

MIB = 2**20
MOST_BYTES = 64 * MIB  # of a file that is read whole, where its reader says nothing else
MOST_LINE_BYTES = 64 * MIB
DEEPEST = 100  # lists and objects inside each other; what people write has ten
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


class FileRefusedError(ValueError):
    """A file cannot be read as it is: the rule it breaks, what it is instead, and the remedy."""

    def __init__(self, rule: str, found: str, remedy: str) -> None:
        super().__init__(rule, found, remedy)
        self.rule, self.found, self.remedy = rule, found, remedy

    def __str__(self) -> str:
        return f"{self.rule}; {self.found}. {self.remedy}"


def open_regular(path: str | Path) -> BinaryIO:
    """Opens a regular file for reading its bytes; a link to one is followed.

    Never waits: a named pipe, a device, a socket and a folder raise FileRefusedError at once. Raises OSError as
    `open` does.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            kind = next((name for test, name in KINDS if test(mode)), "something else")
            raise FileRefusedError("It must be a regular file", f"{path} is {kind}", "Put a regular file there.")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: str | Path, most_bytes: int = MOST_BYTES) -> bytes:
    """Reads a regular file whole. Raises FileRefusedError as `open_regular` does, and where it is larger."""
    with open_regular(path) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        found = f"{path} holds more"
        raise FileRefusedError(
            f"It must hold at most {most_bytes / MIB:g} MiB", found, "Check that it is the right file."
        )
    return content


def read_text(path: str | Path, most_bytes: int = MOST_BYTES) -> str:
    """Reads a regular file's UTF-8 text, without a byte order mark.

    Raises FileRefusedError as `read_bytes` does, and where it is not UTF-8.
    """
    try:
        return read_bytes(path, most_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found = f"{path} is not, at byte {error.start}"
        raise FileRefusedError("It must be text in UTF-8", found, "Save it as UTF-8.") from None


def read_json(path: str | Path, most_bytes: int = MOST_BYTES) -> Any:
    """Reads a regular file's one JSON value. Raises FileRefusedError as `read_text` does, and where it is not JSON."""
    text = read_text(path, most_bytes)
    try:
        return parse_json(text)
    except ValueError as error:
        raise FileRefusedError("It must hold JSON", f"{path} does not: {error}", "Correct the file.") from None


def read_lines(path: str | Path, most_line_bytes: int = MOST_LINE_BYTES) -> Iterator[bytes]:
    """Yields a regular file's lines with their line ends, one at a time in memory.

    Raises FileRefusedError as `open_regular` does, and where a line is longer.
    """
    with open_regular(path) as file:
        number = 0
        while line := file.readline(most_line_bytes + 1):
            number += 1
            if len(line) > most_line_bytes:
                rule = f"A line must hold at most {most_line_bytes / MIB:g} MiB"
                raise FileRefusedError(rule, f"line {number} of {path} holds more", "Check that it is the right file.")
            yield line


def parse_json(text: str | bytes) -> Any:
    """Returns the text's one JSON value.

    Raises ValueError where it is not JSON, where lists and objects lie deeper inside each other than `DEEPEST`, or
    where an integer has thousands of digits.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    # Counting brackets is quick, and what has few cannot be deep.
    brackets = (text.count("["), text.count("{")) if isinstance(text, str) else (text.count(b"["), text.count(b"{"))
    if sum(brackets) > DEEPEST and _depth_exceeds(value, DEEPEST):
        raise ValueError(_TOO_DEEP)
    return value


_TOO_DEEP = f"lists and objects lie more than {DEEPEST} deep inside each other"


def _depth_exceeds(value: Any, most: int) -> bool:
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(most):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True
