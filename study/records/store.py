"""Appends a record when a trial ends, one a line, and sets aside what a killed driver or a hand has left wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.errors import StoreError
from study.output import resume_command
from study.records.directory_lock import DirectoryLock
from study.records.layout import RESULTS_FILE, TABLE_FILE
from study.records.mending import mend
from study.records.reading import Reading, SetAside, read_records
from study.records.record import TrialRecord


class ResultsStore:
    """The records of a study's directory: anyone may read them at any moment, one process at a time may append.

    `moved` are the lines that `own` has moved to `results.torn`.
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self._file = self.directory / RESULTS_FILE
        self._lock = DirectoryLock(self.directory)
        self._owned: dict[str, TrialRecord] = {}  # by trial: nobody else writes while this process is the driver
        self.moved: tuple[SetAside, ...] = ()

    def own(self) -> None:
        """Makes this process the directory's one driver until `close` or its end, and moves away what holds no record.

        Raises StoreError where another process is the driver, or where the records cannot be read or mended. Does
        nothing where it is the driver already.
        """
        if self._lock.is_held:
            return
        self._lock.acquire()
        try:
            reading = mend(self._file)
            self._owned = {record.trial_id: record for record in reading.records}
            self.moved = reading.set_aside
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise self._unwritable(error) from error
            raise

    def close(self) -> None:
        """Lets another process become the driver."""
        self._owned = {}
        self._lock.release()

    def append(self, record: TrialRecord) -> bool:
        """Adds a trial's record, safe against a crash when this returns; False if the trial has one already.

        Owns the directory first. Raises StoreError, and leaves the file as it was, where it cannot be written;
        ValueError where the record holds NaN or an infinity.
        """
        self.own()
        if record.trial_id in self._owned:
            return False
        # An error's text may hold half a surrogate pair, for which UTF-8 has no form: it becomes a question mark.
        self._append(record.to_json().encode("utf-8", "replace") + b"\n")
        self._owned[record.trial_id] = record
        return True

    def set_aside(self, reasons: Mapping[str, str]) -> None:
        """Moves these trials' records to `results.torn`, each for its reason: the trials then run again."""
        if reasons:
            self.own()
            try:
                reading = mend(self._file, reasons)
            except OSError as error:
                raise self._unwritable(error) from error
            self._owned = {record.trial_id: record for record in reading.records}
            self.moved += reading.set_aside

    def records(self) -> tuple[TrialRecord, ...]:
        """Returns all whole records in the order of their trials' ends; raises StoreError where they cannot be read.

        Torn lines are left out: the last one may be just being written. Of two records of a trial the later counts.
        """
        return self.reading().records

    def reading(self) -> Reading:
        """Returns the records, and the lines that hold none; while this process is the driver, from memory."""
        if self._lock.is_held:
            return Reading(tuple(self._owned.values()))
        return read_records(self._file)

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
    """Whether all of a run has ended: it then wrote the table of all records, after the last of them.

    In a copy both files may be of any age; there the table must have a row for each record.
    """
    results, table = directory / RESULTS_FILE, directory / TABLE_FILE
    if not (results.exists() and table.exists()):
        return False
    if table.stat().st_mtime >= results.stat().st_mtime:
        return True
    from study.records.results_table import count_rows

    return count_rows(table) == len(read_records(results).records)
