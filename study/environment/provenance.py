"""Collects where a study's numbers come from: versions, code, command line, machine."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from study.checkout import CHECKOUT
from study.environment.requirements import normalized, project_requirements
from study.hardware.machine import hardware
from study.records.files import write_whole
from study.records.layout import PROVENANCE_FILE

PACKED_GIT_FILE = "job/git.json"  # of a job's package, which has no .git: what `git_state` was where it was made
GIT_SECONDS = 10.0
HIDDEN = "***"
SHORTEST_SECRET = 8  # characters; shorter values of variables would hide half a command line
_SECRET_NAME = re.compile(r"token|secret|passw(or)?d|credential|(api|access|private)[_-]?key", re.IGNORECASE)
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")
_PAIR = re.compile(r"([\w.\"'-]+\s*:\s*)([^\s,{}\[\]]+)")  # within YAML's flow style
_NO_SECRET = re.compile(r"max_(new_)?tokens", re.IGNORECASE)  # the study file's own keys


def collect(command: str, started: datetime, checkout: Path = CHECKOUT) -> dict[str, Any]:
    """Returns everything known of a run's circumstances, JSON-ready; secrets in the command line are hidden."""
    return {
        "started": started.isoformat(timespec="seconds"),
        "command": redacted(command, os.environ),
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


def git_state(checkout: Path) -> dict[str, Any] | None:
    """Returns the checkout's commit, and whether files differ from it; None without git or a commit."""
    try:
        if Path(_git(checkout, "rev-parse", "--show-toplevel")).resolve() != checkout.resolve():
            return None  # a copy that lies in someone else's repository
        commit = _git(checkout, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(checkout, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def packed_git_state(checkout: Path) -> dict[str, Any] | None:
    """Returns the state that a job's package took along; None without one, as with Ray's own `ray job submit`."""
    try:
        state = json.loads((checkout / PACKED_GIT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state if isinstance(state, dict) else None


def _git(checkout: Path, *arguments: str) -> str:
    command = ["git", "-C", str(checkout), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=True)
    return done.stdout.strip()


def redacted(command: str, environment: Mapping[str, str]) -> str:
    """Returns the command line with `***` in place of what may be secret.

    Secret are values of `KEY=VALUE`, `KEY: VALUE` and `--key VALUE` whose key speaks of a token, key or password, hub
    tokens wherever they stand, and the values of environment variables with such names.
    """
    secrets = [value for name, value in environment.items() if _is_secret(name) and len(value) >= SHORTEST_SECRET]
    try:
        words = shlex.split(command)
    except ValueError:  # quotes without their ends: no command line of ours
        words = command.split()
    before = ["", *words]
    return shlex.join(
        HIDDEN
        if option.startswith("--") and "=" not in option and _is_secret(option)
        else _redacted_word(word, secrets)
        for option, word in zip(before, words, strict=False)
    )


def _redacted_word(word: str, secrets: list[str]) -> str:
    parts = word.split("=")
    for index, key in enumerate(parts[:-1], 1):
        if _is_secret(key):
            return "=".join([*parts[:index], HIDDEN])
    for secret in secrets:
        word = word.replace(secret, HIDDEN)
    word = _PAIR.sub(lambda pair: f"{pair[1]}{HIDDEN}" if _is_secret(pair[1]) else pair[0], word)
    return _HUB_TOKEN.sub(HIDDEN, word)


def _is_secret(name: str) -> bool:
    return bool(_SECRET_NAME.search(_NO_SECRET.sub("", name)))
