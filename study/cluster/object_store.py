"""Copies studies to and from an object store (`s3://`, `gs://`).

A store cannot append, so a study is written to a folder of the driver's machine first; what has changed is copied
every few seconds, and at the end. Checkpoints go there by Ray Tune itself, from the nodes that write them.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from study.errors import StoreError
from study.records.layout import ADAPTERS_FOLDER, RESULTS_FILE, STOPPED_PREFIX, TUNE_FOLDER
from trainables.protocol import STATE_FILE

log = logging.getLogger(__name__)

COPY_SECONDS = 15.0
UNKNOWN = (-1, -1)  # size and time of a file that another driver copied


def open_store(url: str) -> tuple[Any, str]:
    """Returns the file system of a URL, and the path in it. Raises StoreError where there is none."""
    from pyarrow import fs

    with _as_store_error(url):
        system, path = fs.FileSystem.from_uri(url)
        return system, path.rstrip("/")


def fetch(url: str, directory: Path) -> int:
    """Copies a study from a store into a folder, without Tune's files, and returns how many files.

    Raises StoreError, also for a name that leads out of the folder: anyone who may write the store could make one.
    """
    system, root = open_store(url)
    copied = 0
    places = _files(system, root, url)
    for place in places:
        if ".." in place.split("/") or place.startswith("/"):
            raise StoreError("a file's name must stay in the study's folder", place, f"Delete it from {url}.")
    for place in places:
        if not place.startswith(f"{TUNE_FOLDER}/"):
            target = directory / place
            target.parent.mkdir(parents=True, exist_ok=True)
            with _as_store_error(url):
                content = system.open_input_file(f"{root}/{place}").readall()
            partial = target.with_name(f"{target.name}.partial")
            partial.write_bytes(content)
            partial.replace(target)
            copied += 1
    return copied


def is_ahead(url: str, directory: Path) -> bool:
    """Whether the store knows more of a study than a folder does: records are only ever added."""
    system, root = open_store(url)
    with _as_store_error(url):
        info = system.get_file_info(f"{root}/{RESULTS_FILE}")
    local = directory / RESULTS_FILE
    return (info.size or 0) > (local.stat().st_size if local.is_file() else 0)


def stored_checkpoint(url: str, trial_id: str) -> str | None:
    """Returns the URL of the folder of a trial's newest checkpoint in the store; None where there is none."""
    system, root = open_store(url)
    ending = f"/{STATE_FILE}"
    found = [
        (info.mtime_ns or 0, info.path)
        for info in _infos(system, f"{root}/{TUNE_FOLDER}", url)
        if info.path.endswith(ending) and info.path.split("/")[-3] == trial_id
    ]
    if not found:
        return None
    _, newest = max(found)
    return f"{url}{newest[len(root) :]}".removesuffix(ending)


class Mirror:
    """Copies a study's directory to its place in a store every few seconds while it is entered, and at its end."""

    def __init__(self, directory: Path, url: str, seconds: float = COPY_SECONDS) -> None:
        self._directory, self._url, self._seconds = directory, url, seconds
        self._system, self._root = open_store(url)
        self._copied: dict[str, tuple[int, int]] = {}  # size and time of what is there already
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, name="object store", daemon=True)

    def __enter__(self) -> Mirror:
        self._copied |= dict.fromkeys(self._stored_adapters(), UNKNOWN)
        self.copy()  # a store that cannot be written must be known before hours of training
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self.copy()

    def copy(self) -> int:
        """Copies what has changed, and returns how many files. Raises StoreError."""
        changed = [file for file in self._there() if self._copied.get(file) != self._state(file)]
        for file in changed:
            state = self._state(file)  # before it is read: what is written meanwhile is copied next time
            content = _content(self._directory / file)
            target = f"{self._root}/{file}"
            with _as_store_error(self._url):
                self._system.create_dir(target.rpartition("/")[0], recursive=True)
                with self._system.open_output_stream(target) as out:
                    out.write(content)
            self._copied[file] = state
        self._forget()
        return len(changed)

    def _forget(self) -> None:
        """Deletes from the store what this machine has no more: adapters that are not kept."""
        for file in [file for file in self._copied if not (self._directory / file).exists()]:
            with _as_store_error(self._url), suppress(FileNotFoundError):
                self._system.delete_file(f"{self._root}/{file}")
            del self._copied[file]

    def _stored_adapters(self) -> list[str]:
        """The adapters' files that an earlier driver copied: it may have been killed before it deleted some again.

        What is not here was not kept: a study continues only where all that the store knows of it has been fetched.
        """
        found = _infos(self._system, f"{self._root}/{ADAPTERS_FOLDER}", self._url)
        return [info.path[len(self._root) + 1 :] for info in found]

    def _live(self) -> None:
        while not self._over.wait(self._seconds):
            try:
                self.copy()
            except (StoreError, OSError) as error:  # tried again; at the end it is raised
                log.warning("The study could not be copied to %s now: %s", self._url, error)

    def _there(self) -> Iterator[str]:
        for folder, names, files in os.walk(self._directory):
            inside = Path(folder).relative_to(self._directory)
            if inside == Path(TUNE_FOLDER):
                names[:] = [name for name in names if name.startswith(STOPPED_PREFIX)]  # written on this machine
            for name in files:
                if not name.startswith(".") and not name.endswith((".partial", "-journal")):
                    yield (inside / name).as_posix()

    def _state(self, file: str) -> tuple[int, int]:
        found = (self._directory / file).stat()
        return found.st_size, found.st_mtime_ns


def _content(file: Path) -> bytes:
    """A file's bytes; of a database, which is written to meanwhile, those of a copy that is whole."""
    if file.suffix != ".db":
        return file.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / file.name
        with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        return copy.read_bytes()


def _files(system: Any, root: str, url: str) -> list[str]:
    found = [info.path[len(root) + 1 :] for info in _infos(system, root, url)]
    if not found:
        raise StoreError("A study must be at the URL", f"there is nothing at {url}", "Check it.")
    return sorted(found)


def _infos(system: Any, root: str, url: str) -> list[Any]:
    from pyarrow import fs

    with _as_store_error(url):
        found = system.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
    return [info for info in found if info.type == fs.FileType.File]


@contextmanager
def _as_store_error(url: str) -> Iterator[None]:
    """Raises what pyarrow raises as a StoreError."""
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        remedy = "Check the URL, and the credentials that the cloud's own tools use (for example AWS_PROFILE)."
        raise StoreError(f"{url} must be readable and writable", reason, remedy) from error
