"""Lets one process at a time drive a study's directory, and tells who that is."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from study.errors import StoreError
from study.output import resume_command
from study.records.files import write_whole
from study.records.layout import LOCK_FILE, OWNER_FILE, is_there
from study.records.study_files import read_word

_OWNER = re.compile(r"process (?P<process>[0-9]{1,10}) on (?P<host>.+)")
HIGHEST_PROCESS = 2**31 - 1


class DirectoryLock:
    """A study directory's lock, held by this process until `release` or its end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = FileLock(str(directory / LOCK_FILE), thread_local=False)

    @property
    def is_held(self) -> bool:
        """Whether this process drives the directory."""
        return bool(self._lock.is_locked)

    def acquire(self) -> None:
        """Takes the lock at once, and notes this process as its holder.

        Raises StoreError where another process holds it, or it cannot be taken.
        """
        if not self._directory.is_dir():
            raise StoreError("A study directory must exist", f"there is none at {self._directory}", "Check its path.")
        file = self._directory / LOCK_FILE
        # Taking the lock empties its file: behind a link, that would be somebody's own.
        if is_there(file) and (file.is_symlink() or not file.is_file()):
            raise StoreError(f"{file} must be a regular file", "it is a link or something else", "Remove it.")
        try:
            self._lock.acquire(timeout=0)
            # Replaced and not written into, for the same reason.
            write_whole(self._directory / OWNER_FILE, f"process {os.getpid()} on {socket.gethostname()}")
        except Timeout:
            raise StoreError(
                "A study directory has one driver at a time",
                f"{self._directory} is in use by {read_word(self._directory / OWNER_FILE) or 'another process'}",
                f"Wait until that is done, or end it; then continue: {resume_command(self._directory)}",
            ) from None
        except (OSError, NotImplementedError) as error:
            self._lock.release()
            raise StoreError(
                f"{file} must be writable",
                str(error),
                "Free some space, or give yourself the right to write; then continue: "
                f"{resume_command(self._directory)}",
            ) from error

    def release(self) -> None:
        """Lets another process take it."""
        if self._lock.is_locked:
            (self._directory / OWNER_FILE).unlink(missing_ok=True)
            self._lock.release()


def driver_has_died(directory: Path) -> bool:
    """Whether the directory's driver was a process of this machine that exists no more, as after a kill."""
    owner = _OWNER.fullmatch(read_word(directory / OWNER_FILE) or "")
    if owner is None or owner["host"] != socket.gethostname():
        return False
    process = int(owner["process"])
    return process > HIGHEST_PROCESS or not psutil.pid_exists(process)
