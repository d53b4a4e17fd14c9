"""Asks git about the checkout: its commit, and which files it tracks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

GIT_SECONDS = 10.0
# Set by git for its own hooks; they would lead it to another repository.
_POINTERS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")


def git_state(checkout: Path) -> dict[str, Any] | None:
    """Returns the checkout's commit, and whether files differ from it; None without git or a commit."""
    try:
        if Path(_git(checkout, "rev-parse", "--show-toplevel")).resolve() != checkout.resolve():
            return None  # a copy that lies in someone else's repository
        commit = _git(checkout, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(checkout, "status", "--porcelain"))}
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def tracked_files(checkout: Path, places: Sequence[str]) -> tuple[str, ...]:
    """Returns the tracked files among files and folders of the checkout, as paths in it; none without git."""
    return _listed(checkout, "--cached", places)


def untracked_files(checkout: Path, places: Sequence[str]) -> tuple[str, ...]:
    """Returns the files there that git neither tracks nor ignores."""
    return _listed(checkout, "--others", places)


def _listed(checkout: Path, which: str, places: Sequence[str]) -> tuple[str, ...]:
    try:
        names = _git(checkout, "ls-files", "-z", which, "--exclude-standard", "--", *places).split("\0")
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()
    return tuple(dict.fromkeys(filter(None, names)))


def _git(checkout: Path, *arguments: str) -> str:
    command = ["git", "-C", str(checkout), *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in _POINTERS}
    done = subprocess.run(command, capture_output=True, timeout=GIT_SECONDS, check=True, env=environment)
    return os.fsdecode(done.stdout).strip()
