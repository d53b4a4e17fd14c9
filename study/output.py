"""Words to the user, where nobody may be listening any more. (standard library)"""

from __future__ import annotations

import os
import sys


def say(text: str) -> None:
    """Prints a text at once; where the reader of a pipe has gone, this and what follows is dropped; work goes on."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        drop_output()


def flush_output() -> None:
    """Writes out what was printed, if anyone still reads it."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        drop_output()


def drop_output() -> None:
    """Sends standard output nowhere from now on, so that Python's own flush at the end finds no broken pipe either."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def tolerate_encodings() -> None:
    """Lets output be written that its encoding has no letters for: they become question marks instead of errors."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
