"""Tells whether a folder's files are what was written, by stamps, and by their hashes where a stamp differs.

A manifest holds each file's size and SHA-256. Beside it lie the stamps of the files as they were last verified: size,
times of modification and of change, and inode. Whatever writes to a file moves its time of change, which no program can
set. A file whose stamp differs (altered, replaced, copied) is hashed again. Stamps of a folder just written hold until
the machine starts anew, since what was written may not have reached the disk.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from trainables.whole_files import write_whole

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
VERIFIED = "verified.json"
VERIFY_VARIABLE = "LORA_FRONTIER_VERIFY_CACHE"  # of the environment: where set, stamps are not believed
BOOT_FILE = Path("/proc/sys/kernel/random/boot_id")
PIECE_BYTES = 2**28
BLOCK_BYTES = 2**22


def seal(folder: Path) -> None:
    """Writes the manifest of the folder's files, and their stamps, which hold until the machine starts anew."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    names = {name: path for name, path in names.items() if name not in (MANIFEST, VERIFIED)}
    manifest = {name: {"size": path.stat().st_size, "sha256": hash_file(path)} for name, path in names.items()}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    write_json(folder / VERIFIED, {"boot": _boot(), "stamps": _stamps(folder, manifest)})


def is_intact(folder: Path) -> bool:
    """Whether the folder holds every file of its manifest, unaltered; a manifest of sizes alone tells lengths only."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not manifest or any(_size(entry) != (folder / name).stat().st_size for name, entry in manifest.items()):
            return False
        hashed = {name: entry for name, entry in manifest.items() if isinstance(entry, dict)}
        return _verified(folder, hashed)
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return False


def hash_file(path: Path) -> str:
    """Returns the file's SHA-256; of several pieces (of 256 MiB), the SHA-256 over theirs, computed side by side."""
    starts = range(0, max(1, path.stat().st_size), PIECE_BYTES)
    if len(starts) == 1:
        return _hash_piece(path, 0).hex()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = pool.map(lambda start: _hash_piece(path, start), starts)
        return hashlib.sha256(b"".join(digests)).hexdigest()


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    """Writes the file whole or not at all; a folder that cannot be written costs only time."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(values))
    except OSError as error:
        log.debug("%s could not be written: %s", file, error)


def _verified(folder: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether all files have their hashes; those whose stamps hold are not read."""
    now, known = _stamps(folder, manifest), _known_stamps(folder)
    doubtful = [name for name in manifest if known.get(name) != now[name]]
    altered = [name for name in doubtful if hash_file(folder / name) != manifest[name]["sha256"]]
    if altered:
        log.warning("%s is not what was written, and is made anew: %s was altered.", folder, altered[0])
        return False
    if doubtful:
        write_json(folder / VERIFIED, {"boot": None, "stamps": now})
    return True


def _stamps(folder: Path, names: Mapping[str, Any]) -> dict[str, list[int]]:
    states = {name: (folder / name).stat() for name in names}
    return {name: [it.st_size, it.st_mtime_ns, it.st_ctime_ns, it.st_ino] for name, it in states.items()}


def _known_stamps(folder: Path) -> dict[str, Any]:
    """Returns the stamps of the last verification; none where it was for another start of the machine, or unwanted."""
    if os.environ.get(VERIFY_VARIABLE):
        return {}
    try:
        verified = json.loads((folder / VERIFIED).read_text(encoding="utf-8"))
        boot = verified["boot"]
        return dict(verified["stamps"]) if boot is None or (boot and boot == _boot()) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _boot() -> str:
    """Returns what names this start of the machine; empty where no system says."""
    try:
        return BOOT_FILE.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _size(entry: Any) -> int:
    return int(entry["size"] if isinstance(entry, dict) else entry)


def _hash_piece(path: Path, start: int) -> bytes:
    value, left, block = hashlib.sha256(), PIECE_BYTES, memoryview(bytearray(BLOCK_BYTES))
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while left and (count := file.readinto(block[: min(left, BLOCK_BYTES)])):
            value.update(block[:count])
            left -= count
    return value.digest()
