"""Moves what holds no record out of `results.jsonl`, so that its trial runs again."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from study.errors import StoreError
from study.records.layout import RESULTS_FILE, TORN_FILE
from study.records.lines import Line
from study.records.reading import Reading, SetAside, lines_of, sort_out
from study.records.study_files import refuse_link
from trainables.guarded_files import open_regular

WRITABLE = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK


def mend(file: Path, unwanted: Mapping[str, str] = {}) -> Reading:
    """Moves torn lines, lines that hold no record and records of `unwanted` trials to `results.torn`.

    Ends a whole last line that lacks its line feed. Only the driver may call it. Returns what is left, and what was
    moved, the reasons with it; `unwanted` are reasons by trial. Raises StoreError where the file cannot be read, or a
    later version of LoRA Frontier has written a line of it; OSError where it cannot be written.
    """
    refuse_link(file)
    lines = list(lines_of(file))
    _refuse_later(file, lines)
    found = sort_out(lines)
    reasons = {line.number: line.fault for line in lines if line.fault}
    reasons |= {one.number: one.reason for one in found.set_aside}
    counting = {id(one) for one in found.records if one.trial_id not in unwanted}
    kept = [line for line in lines if id(line.record) in counting]
    for line in lines:
        if line.record is not None and line.record.trial_id in unwanted:
            reasons.setdefault(line.number, unwanted[line.record.trial_id])
    if reasons or (lines and not lines[-1].ended):
        _move(file, lines, kept, reasons)
    moved = tuple(SetAside(number, reasons[number]) for number in sorted(reasons))
    return Reading(tuple(one for one in found.records if one.trial_id not in unwanted), moved)


def _refuse_later(file: Path, lines: Sequence[Line]) -> None:
    """What a later version has written may be good: its trials must not be run again."""
    later = next((line for line in lines if line.later), None)
    if later is not None:
        rule = f"Line {later.number} of {file} must be a trial's record that this version can read"
        raise StoreError(rule, later.fault, "Where a hand has changed the line, remove it: its trial then runs again.")


def _move(file: Path, lines: Sequence[Line], kept: Sequence[Line], reasons: Mapping[int, str]) -> None:
    """First the lines that go are written down, then the file is replaced: a kill in between loses nothing."""
    staying = {line.number for line in kept}
    with open_regular(file) as source:
        if reasons:
            with _appending(file.with_name(TORN_FILE)) as out:
                for line in lines:
                    _write_down(source, line, line.number in staying, reasons.get(line.number), out)
                out.flush()
                os.fsync(out.fileno())
        _replace(file, source, kept)


def _write_down(source: BinaryIO, line: Line, stays: bool, reason: str | None, out: BinaryIO) -> None:
    end = line.record_start if stays else line.end
    if reason is not None and end > line.start:
        out.write(f"# line {line.number} of {RESULTS_FILE}: {reason}\n".encode("utf-8", "replace"))
        _copy(source, line.start, end, out)
        out.write(b"\n")


def _replace(file: Path, source: BinaryIO, kept: Sequence[Line]) -> None:
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            for line in kept:
                _copy(source, line.record_start, line.end, out)
                out.write(b"\n")
            out.flush()
            os.fsync(out.fileno())
        shutil.copymode(file, name)
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _appending(file: Path) -> BinaryIO:
    """Opens for appending; a link is refused, since what it leads to is not ours."""
    return os.fdopen(os.open(file, WRITABLE, 0o644), "ab")


def _copy(source: BinaryIO, start: int, end: int, out: BinaryIO) -> None:
    source.seek(start)
    while start < end:
        content = source.read(min(2**20, end - start))
        out.write(content)
        start += len(content)
