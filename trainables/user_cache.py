"""Keeps converted and quantized weights in the user's cache folder, made once and shared between processes.

An entry is a folder `KIND/KEY` with a manifest of its files' sizes and hashes. It is written beside its place and
renamed, so that an entry is either whole or not there; a lock keeps two processes from making the same one; an entry
that does not match its manifest (a full disk, a killed machine, an altered file) is made anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from trainables.verified_files import hash_file, is_intact, seal, write_json

log = logging.getLogger(__name__)

LOCK_SECONDS = 1800.0  # longer than quantizing the largest model; after it, the work is merely done twice


def cache_root() -> Path:
    """Returns the cache folder.

    `$LORA_FRONTIER_CACHE`, else `$XDG_CACHE_HOME/lora-frontier`, else `~/.cache/lora-frontier`.
    """
    own = os.environ.get("LORA_FRONTIER_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared).expanduser().absolute() if shared else Path.home() / ".cache") / "lora-frontier"


def digest(values: Mapping[str, Any]) -> str:
    """Returns a key of 32 hexadecimal digits for JSON-ready values, independent of their order."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class CacheEntry:
    """One folder of the cache; `key` must name everything that its content depends on."""

    kind: str
    key: str

    @property
    def folder(self) -> Path:
        """The place of the entry, whether it is there yet or not."""
        return cache_root() / self.kind / self.key

    def intact(self) -> bool:
        """Whether the entry is there with every file of its manifest, none of them altered."""
        return is_intact(self.folder)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the entry against other processes; where no lock can be had, continues without (`fill` is atomic)."""
        held = FileLock(self.folder.with_suffix(".lock"))
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            held.acquire(timeout=LOCK_SECONDS)
            for left_over in self.folder.parent.glob(f"{self.key}.partial-*"):  # of a process that was killed
                shutil.rmtree(left_over, ignore_errors=True)
        except OSError as error:  # a read-only cache, or filelock's Timeout
            log.warning("The cache entry %s could not be locked (%s).", self.folder, error)
        try:
            yield
        finally:
            held.release()

    def fill(self, make: Callable[[Path], None]) -> None:
        """Makes the entry anew: `make` writes into an empty folder, which then takes the entry's place.

        Raises what `make` raises, and OSError where the cache cannot be written; nothing half-written stays.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{self.key}.partial-", dir=self.folder.parent))
        try:
            make(partial)
            seal(partial)
            if not self._replace(partial):
                raise OSError(f"the cache entry {self.folder} could not be put in its place")
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def discard(self) -> None:
        """Removes the entry; one that is not there is no fault."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _replace(self, partial: Path) -> bool:
        self.discard()
        try:
            partial.rename(self.folder)
        except OSError:  # another process was faster, without the lock
            return self.intact()
        return True


def cached_folder(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """Returns the folder of the entry `kind`/`key`, made by `make(folder)` where it is missing or broken.

    Raises what `make` raises, and OSError where the cache cannot be written.
    """
    entry = CacheEntry(kind, key)
    if entry.intact():
        return entry.folder
    with entry.lock():
        if not entry.intact():  # else another process made it while we waited
            entry.fill(make)
    return entry.folder


def file_sha256(path: Path) -> str:
    """Returns the file's SHA-256, remembered in the cache while its path, size and times stay.

    Of a file of several pieces (of 256 MiB) it is the SHA-256 over its pieces' digests, computed side by side: one
    core alone would take half a minute for the 16 GB of a model of 8 B parameters.
    """
    path = path.absolute()
    state = path.stat()
    known = {"path": str(path), "size": state.st_size, "mtime_ns": state.st_mtime_ns, "ctime_ns": state.st_ctime_ns}
    note = cache_root() / "sha256" / f"{digest(known)}.json"
    try:
        return str(json.loads(note.read_text(encoding="utf-8"))["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        value = hash_file(path)
        write_json(note, {**known, "sha256": value})
        return value
