"""Appends a record when a trial ends, one a line, and mends what a killed driver has left."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from study.errors import StoreError
from study.output import resume_command
from study.records.files import write_whole
from study.records.layout import LOCK_FILE, OWNER_FILE, RESULTS_FILE, TABLE_FILE, TORN_FILE
from study.records.lines import Line, LineError, read_lines
from study.records.record import TrialRecord

_OWNER = re.compile(r"process (?P<process>[0-9]+) on (?P<host>.+)")


class ResultsStore:
    """The records of a study's directory: anyone may read them at any moment, one process at a time may append."""

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self._file = self.directory / RESULTS_FILE
        self._lock = FileLock(str(self.directory / LOCK_FILE), thread_local=False)
        self._ids: set[str] = set()

    def own(self) -> None:
        """Makes this process the directory's one driver until `close` or its end, and mends what a kill has left.

        Raises StoreError where another process is the driver, or where the records cannot be read or mended. Does
        nothing where it is the driver already.
        """
        if self._lock.is_locked:
            return
        self._acquire()
        try:
            (self.directory / OWNER_FILE).write_text(f"process {os.getpid()} on {socket.gethostname()}", "utf-8")
            self._mend()
            self._ids = {record.trial_id for record in self.records()}
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise self._unwritable(error) from error
            raise

    def close(self) -> None:
        """Lets another process become the driver."""
        if self._lock.is_locked:
            (self.directory / OWNER_FILE).unlink(missing_ok=True)
            self._lock.release()

    def append(self, record: TrialRecord) -> bool:
        """Adds a trial's record, safe against a crash when this returns; False if the trial has one already.

        Owns the directory first. Raises StoreError, and leaves the file as it was, where it cannot be written;
        ValueError where the record holds NaN or an infinity.
        """
        self.own()
        if record.trial_id in self._ids:
            return False
        # An error's text may hold half a surrogate pair, for which UTF-8 has no form: it becomes a question mark.
        self._append(record.to_json().encode("utf-8", "replace") + b"\n")
        self._ids.add(record.trial_id)
        return True

    def records(self) -> tuple[TrialRecord, ...]:
        """Returns all whole records in the order of their trials' ends; raises StoreError where they cannot be read.

        Torn lines are left out: the last one may be just being written. Of two records of a trial the later counts.
        """
        found = {line.record.trial_id: line.record for line in self._lines() if line.record is not None}
        return tuple(found.values())

    def write_table(self) -> Path:
        """Writes `results.parquet` anew, one flat row a trial, and returns its path; StoreError where that fails."""
        from study.records.results_table import write_results_table  # pyarrow takes its time, and only this needs it

        file = self.directory / TABLE_FILE
        try:
            write_results_table(file, self.records())
        except OSError as error:
            raise self._unwritable(error, file) from error
        return file

    def __enter__(self) -> ResultsStore:
        self.own()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self.directory}  # a copy reads, and does not own

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["directory"])  # type: ignore[misc]

    def _acquire(self) -> None:
        if not self.directory.is_dir():
            raise StoreError("A study directory must exist", f"there is none at {self.directory}", "Check its path.")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise StoreError(
                "A study directory has one driver at a time",
                f"{self.directory} is in use by {self._owner()}",
                f"Wait until that is done, or end it; then continue: {resume_command(self.directory)}",
            ) from None
        except (OSError, NotImplementedError) as error:
            raise self._unwritable(error, self.directory / LOCK_FILE) from error

    def _owner(self) -> str:
        try:
            return (self.directory / OWNER_FILE).read_text("utf-8") or "another process"
        except FileNotFoundError:
            return "another process"

    def _append(self, line: bytes) -> None:
        is_new = not self._file.exists()
        size = 0 if is_new else self._file.stat().st_size
        try:
            with self._file.open("ab") as out:
                out.write(line)
                out.flush()
                os.fsync(out.fileno())
            if is_new:
                _sync_folder(self.directory)
        except OSError as error:
            if self._file.exists():
                os.truncate(self._file, size)
            raise self._unwritable(error) from error

    def _mend(self) -> None:
        """Ends a whole last line that lacks its line feed, and takes what is torn out of the file."""
        lines = list(self._lines())
        torn = [line.torn for line in lines if line.torn]
        if torn:
            with (self.directory / TORN_FILE).open("ab") as out:
                out.writelines(one + b"\n" for one in torn)
                out.flush()
                os.fsync(out.fileno())
        if torn or (lines and not lines[-1].ended):
            write_whole(self._file, "".join(f"{line.whole.decode()}\n" for line in lines if line.record))

    def _lines(self) -> Iterator[Line]:
        try:
            data = self._file.read_bytes() if self._file.exists() else b""
        except OSError as error:
            raise StoreError(
                f"{self._file} must be readable", str(error), "Give yourself the right to read it."
            ) from error
        try:
            yield from read_lines(data)
        except LineError as error:
            rule = f"Line {error.number} of {self._file} must be a trial's record"
            raise StoreError(rule, error.reason, "Remove that line; `resume` then runs its trial again.") from error

    def _unwritable(self, error: Exception, file: Path | None = None) -> StoreError:
        return StoreError(
            f"{file or self._file} must be writable",
            str(error),
            f"Free some space, or give yourself the right to write; then continue: {resume_command(self.directory)}",
        )


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def concluded(directory: Path) -> bool:
    """Whether all of a run has ended: it then wrote the table of all records, after the last of them."""
    results, table = directory / RESULTS_FILE, directory / TABLE_FILE
    return results.exists() and table.exists() and table.stat().st_mtime >= results.stat().st_mtime


def driver_has_died(directory: Path) -> bool:
    """Whether the directory's driver was a process of this machine that exists no more, as after a kill."""
    try:
        owner = _OWNER.fullmatch((directory / OWNER_FILE).read_text(encoding="utf-8"))
    except OSError:
        return False
    if owner is None or owner["host"] != socket.gethostname():
        return False
    return not psutil.pid_exists(int(owner["process"]))
