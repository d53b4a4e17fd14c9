"""Finds the Ray cluster that a study runs on."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

CONNECT_SECONDS = 2.0
LOCAL = "local"


def ray_address() -> str:
    """Returns `RAY_ADDRESS`, else the address of a cluster of this machine that responds, else `local`.

    Ray sets `RAY_ADDRESS` in a submitted job; `local` is a Ray of the study's own. Left to itself, Ray waits
    for minutes for a cluster that `ray start` has made once and that exists no more.
    """
    asked = os.environ.get("RAY_ADDRESS")
    if asked:
        return asked
    noted = noted_cluster(Path(tempfile.gettempdir()) / "ray" / "ray_current_cluster")
    return noted if noted and responds(noted) else LOCAL


def noted_cluster(file: Path) -> str | None:
    """Returns the address that `ray start` notes on its machine, HOST:PORT; None where there is none."""
    try:
        address = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    host, _, port = address.rpartition(":")
    return address if host and port.isdecimal() else None


def responds(address: str) -> bool:
    """Whether something listens there."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS):
            return True
    except OSError:
        return False
