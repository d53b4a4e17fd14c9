"""Checks the folder for temporary files in which a Ray of the study's own keeps its sockets and logs."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from study.errors import ConfigFault
from study.records.units import format_bytes

VARIABLES = ("RAY_TMPDIR", "TMPDIR")  # as Ray looks for them; else /tmp
MOST_SOCKET_BYTES = (104 if sys.platform == "darwin" else 108) - 1  # of a Unix socket's path (man 7 unix)
SESSION = f"session_2026-01-31_12-00-00_123456_{{pid}}{os.sep}sockets{os.sep}plasma_store"
LEAST_FREE_BYTES = 100 * 2**20  # for Ray's logs; what does not fit the shared memory is spilled there too


def ray_folder(environment: Mapping[str, str]) -> Path:
    """Returns the folder in which Ray keeps its sessions on this machine."""
    return Path(_named(environment)[1], "ray")


def place_faults(environment: Mapping[str, str]) -> list[ConfigFault]:
    """Returns what is wrong with the place for temporary files: length, kind, the right to write, free space."""
    name, folder = _named(environment)
    path = os.path.join(folder, "ray", SESSION.format(pid=os.getpid()))
    over = len(os.fsencode(path)) - MOST_SOCKET_BYTES
    if over > 0:
        rule = f"must be {over} bytes shorter: the paths of Ray's sockets may have {MOST_SOCKET_BYTES} bytes"
        return [ConfigFault(name, "", folder, rule, "Set RAY_TMPDIR to a folder of a shorter path, such as /tmp.")]
    remedy = "Set RAY_TMPDIR to a folder for temporary files, such as /tmp."
    reason = _why_not_writable(Path(folder))
    if reason:
        return [ConfigFault(name, "", folder, f"must be a folder for temporary files; {reason}", remedy)]
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < LEAST_FREE_BYTES:
        rule = f"must have {format_bytes(LEAST_FREE_BYTES)} free; {format_bytes(free_bytes)} are"
        return [ConfigFault(name, "", folder, rule, f"Free some. Or: {remedy}")]
    return []


def _named(environment: Mapping[str, str]) -> tuple[str, str]:
    """The variable that names the folder, or where none does a word for it, and the folder."""
    return next(
        ((name, environment[name]) for name in VARIABLES if name in environment), ("temporary folder", f"{os.sep}tmp")
    )


def _why_not_writable(folder: Path) -> str:
    """Why no file can be made there, as a clause; an empty text where one can."""
    if not str(folder).startswith(os.sep):
        return "it is no absolute path"
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return (error.strerror or str(error)).lower()
