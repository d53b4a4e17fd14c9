"""Runs a command in process on input that somebody might hand in, and bounds its exit code, words, time and memory."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from study.cli.main import main
from study.errors import WRONG_INPUT

MIB = 2**20
UNEXPECTED = ("Traceback (most recent call last)", "It failed:", "LORA_FRONTIER_TRACEBACK")


@dataclass(frozen=True)
class Hostile:
    """One input and what must come of it.

    `make` gets an empty folder and the folder of a good model, which it may copy and must not change; it writes the
    input and returns the command line to run on it. Every one of `words` must stand in what the command says;
    `unsaid` must not.
    """

    name: str
    make: Callable[[Path, Path], list[str]]
    words: tuple[str, ...] = ()
    unsaid: tuple[str, ...] = ()
    exit_code: int = WRONG_INPUT
    most_seconds: float = 5.0
    most_bytes: int = 200 * MIB
    most_lines: int = 12

    def __str__(self) -> str:
        return self.name


def table(*rows: Hostile) -> pytest.MarkDecorator:
    """Parametrizes a test by `hostile`, one row at a time, under the rows' names, which must differ."""
    assert len({row.name for row in rows}) == len(rows)
    return pytest.mark.parametrize("hostile", rows, ids=str)


def holds(hostile: Hostile, folder: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Runs the command, holds that it ends as told, within its time and memory, and returns what it said."""
    arguments = hostile.make(folder, model)
    capsys.readouterr()
    reset_peak()
    before = resident_bytes("VmRSS")
    start = time.monotonic()
    with bounded(3 * hostile.most_seconds, 4 * hostile.most_bytes):
        exit_code = main(arguments)
    seconds, grown = time.monotonic() - start, resident_bytes("VmHWM") - before
    out, err = capsys.readouterr()
    said = out + err
    assert exit_code == hostile.exit_code, said
    assert [word for word in UNEXPECTED if word in said] == [], said
    assert [word for word in hostile.words if word not in said] == [], said
    assert [word for word in hostile.unsaid if word in said] == [], said
    assert seconds < hostile.most_seconds, said
    assert grown < hostile.most_bytes, said
    if hostile.exit_code == WRONG_INPUT:
        assert len(err.splitlines()) <= hostile.most_lines, said
        assert max(map(len, err.splitlines())) < 2000, said
    return said


@contextmanager
def bounded(seconds: float, more_bytes: int) -> Iterator[None]:
    """Ends what runs inside with an error where it takes longer, or asks for more address space, than a mistake may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (resident_bytes("VmSize") + more_bytes + 2048 * MIB, hard))
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _too_long(*_: Any) -> None:
    raise AssertionError("the command did not end in its time")


def reset_peak() -> None:
    """Lets the process' resident peak begin anew (Linux: `man 5 proc`, clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def resident_bytes(name: str) -> int:
    """Returns a size of this process as `/proc/self/status` names it: `VmRSS`, `VmHWM` or `VmSize`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)
