"""Collects where a study's numbers come from: versions, code, command line, machine."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from study.checkout import CHECKOUT
from study.environment.git import git_state
from study.environment.requirements import normalized, project_requirements
from study.hardware.machine import hardware
from study.records.files import write_whole
from study.records.layout import PROVENANCE_FILE
from study.secrets import masked_command

PACKED_GIT_FILE = "job/git.json"  # of a job's package, which has no .git: what `git_state` was where it was made


def collect(command: str, started: datetime, checkout: Path = CHECKOUT) -> dict[str, Any]:
    """Returns everything known of a run's circumstances, JSON-ready; secrets in the command line are hidden."""
    return {
        "started": started.isoformat(timespec="seconds"),
        "command": masked_command(command),
        "git": git_state(checkout) or packed_git_state(checkout),
        "platform": platform.platform(),
        "hardware": hardware(),
        **package_versions(),
    }


def write(directory: Path, facts: Mapping[str, Any]) -> Path:
    """Writes what was collected into a study's directory, whole or not at all, and returns the file's path."""
    return write_whole(directory / PROVENANCE_FILE, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


def package_versions() -> dict[str, Any]:
    """Returns `versions` of Python and of what the project names, and `other_packages` as `name==version`."""
    there: dict[str, str] = {}
    for distribution in metadata.distributions():
        facts = distribution.metadata  # read anew at each access
        if facts["Name"]:  # else the left-over of an installation that was broken off
            there.setdefault(normalized(facts["Name"]), facts["Version"])
    own = [normalized(requirement.name) for requirement in project_requirements().everything()]
    versions = {name: there[name] for name in dict.fromkeys(own) if name in there}
    others = sorted(f"{name}=={version}" for name, version in there.items() if name not in versions)
    return {"versions": {"python": platform.python_version(), **versions}, "other_packages": others}


def packed_git_state(checkout: Path) -> dict[str, Any] | None:
    """Returns the state that a job's package took along; None without one, as with Ray's own `ray job submit`."""
    try:
        state = json.loads((checkout / PACKED_GIT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) else None
