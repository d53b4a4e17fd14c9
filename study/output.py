"""Prints words and tables to a terminal, where nobody may be reading any more."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from study.secrets import masked
from trainables.timeline import FIRST_LINE, timeline

_lost: list[str] = []


def say(text: str) -> None:
    """Prints a text for people at once, with what may be secret hidden.

    Where a pipe has no reader any more, drops this and all later output without error.
    """
    put(masked(text))
    timeline.mark(FIRST_LINE)


def put(text: str, end: str = "\n") -> None:
    """Prints a document for other programs at once, as it is.

    Where standard output cannot be written any more, such as on a full disk, this and all later output is dropped, and
    `lost_output` says why: a study of hours does not end over it.
    """
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        drop_output()
    except OSError as error:
        _lost.append(error.strerror or str(error))
        drop_output()
    except ValueError:
        if not sys.stdout.closed:
            raise
        _lost.append("it is closed")


def lost_output() -> str:
    """Returns why output of this process was lost, and forgets it; an empty text where none was."""
    reason = _lost[0] if _lost else ""
    _lost.clear()
    return reason


def flush_output() -> None:
    """Writes out what was printed, if anyone still reads it."""
    put("", end="")


def drop_output() -> None:
    """Sends standard output nowhere from now on, so that Python's own flush at the end finds no broken pipe either."""
    if sys.stdout is None:  # the process was started without
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def tolerate_encodings() -> None:
    """Lets output be written that its encoding has no letters for: they become question marks instead of errors."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def resume_command(directory: Path | str) -> str:
    """Returns the command that continues a study: `python -m study resume DIR`."""
    return shlex.join(["python", "-m", "study", "resume", str(directory)])


def plural(number: int, noun: str) -> str:
    """Returns a number with its noun: `1 trial`, `1,024 trials`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def aligned(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int = 2) -> str:
    """Returns a table in plain text, indented by two; the first `left` columns are aligned left, the others right."""
    every = [list(headings), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    return "\n".join("  " + _aligned_row(row, widths, left) for row in every)


def _aligned_row(row: Sequence[str], widths: Sequence[int], left: int) -> str:
    cells = [
        cell.ljust(width) if index < left else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "   ".join(cells).rstrip()
