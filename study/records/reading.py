"""Reads `results.jsonl`: the records that hold, and the lines that do not, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from study.errors import StoreError
from study.output import plural
from study.records.layout import RESULTS_FILE
from study.records.lines import MOST_LINES, Line, read_lines
from study.records.record import TrialRecord
from trainables.guarded_files import FileRefusedError, open_regular

SHOWN = 3  # of lines that are set aside
MOST_BYTES = 4 * 2**30
RIGHT_FILE = "Check that it is the right file."


@dataclass(frozen=True)
class SetAside:
    """A line of `results.jsonl` that counts for nothing, and why."""

    number: int  # from 1
    reason: str


@dataclass(frozen=True)
class Reading:
    """What a results file holds; `torn_end` where its last line is not written to its end, or is being written."""

    records: tuple[TrialRecord, ...] = ()
    set_aside: tuple[SetAside, ...] = ()


def read_records(file: Path) -> Reading:
    """Reads the records in the order of their trials' ends; safe at any moment of a running study.

    Of two records of a trial the later counts, in the place of the earlier, which is set aside. A last line that is
    torn and not ended may be just being written, and is left out without a word. No file is no record. Raises
    StoreError where the file cannot be read.
    """
    return sort_out(list(lines_of(file)))


def sort_out(lines: Sequence[Line]) -> Reading:
    """The records of these lines, and what of them counts for nothing."""
    latest = {line.record.trial_id: line for line in lines if line.record is not None}
    aside = [SetAside(line.number, line.fault) for line in lines if line.fault and not _under_way(line)]
    aside += [SetAside(line.number, _replaced(latest, line)) for line in lines if _is_replaced(latest, line)]
    records = {trial_id: line.record for trial_id, line in latest.items()}
    ordered = tuple(record for record in records.values() if record is not None)
    return Reading(ordered, tuple(sorted(aside, key=lambda one: one.number)))


def _is_replaced(latest: Mapping[str, Line], line: Line) -> bool:
    return line.record is not None and latest[line.record.trial_id] is not line


def _replaced(latest: Mapping[str, Line], line: Line) -> str:
    assert line.record is not None  # as `_is_replaced` says
    return f"trial {line.record.trial_id} has a later record in line {latest[line.record.trial_id].number}"


def _under_way(line: Line) -> bool:
    return line.record is None and line.torn and not line.ended


def lines_of(file: Path) -> Iterator[Line]:
    """Yields a results file's lines; none where it is not there. Raises StoreError where it cannot be read."""
    try:
        with open_regular(file) as content:
            if content.seek(0, 2) > MOST_BYTES:
                raise _unreadable(
                    file, f"it holds more than {MOST_BYTES // 2**30} GiB", "Check that it is the right file."
                )
            content.seek(0)
            for line in read_lines(content):
                if line.number > MOST_LINES:
                    raise _unreadable(
                        file, f"it has more than {MOST_LINES:,} lines", "Check that it is the right file."
                    )
                yield line
    except FileNotFoundError:
        return
    except FileRefusedError as error:
        raise _unreadable(file, error.found, f"{error.rule}. {error.remedy}") from None
    except OSError as error:
        raise _unreadable(file, error.strerror or str(error), "Give yourself the right to read it.") from error


def set_aside_words(set_aside: Sequence[SetAside], where: str = RESULTS_FILE) -> str:
    """`2 lines of results.jsonl hold no record and are left out: line 3: …; line 7: …`; empty where there are none."""
    if not set_aside:
        return ""
    holds = "holds" if len(set_aside) == 1 else "hold"
    are = "is" if len(set_aside) == 1 else "are"
    head = f"{plural(len(set_aside), 'line')} of {where} {holds} no record that counts and {are} left out"
    return f"{head}: {first_reasons(set_aside)}."


def first_reasons(set_aside: Sequence[SetAside], noun: str = "line") -> str:
    """The first lines with their reasons, and how many there are besides."""
    shown = [f"{noun} {one.number}: {one.reason}" for one in set_aside[:SHOWN]]
    more = len(set_aside) - len(shown)
    return "; ".join([*shown, *([f"and {more:,} more"] if more else [])])


def _unreadable(file: Path, found: str, remedy: str) -> StoreError:
    return StoreError(f"{file} must be readable", found, remedy)
