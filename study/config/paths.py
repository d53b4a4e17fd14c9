"""Paths in a study file: a relative one starts at the study file's folder, then at the checkout. (no torch, no ray)"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from study.checkout import CHECKOUT

_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_URL = re.compile(r"[a-z][a-z0-9]*://.+")
_FILE_ENDINGS = (".json", ".jsonl", ".gguf")


def find(text: str, folder: Path, is_there: Callable[[Path], bool] = os.path.exists) -> Path | None:
    """The first place under this path where something is there; None where nothing is."""
    # Not Path.exists, which raises where a name is too long.
    return next((place for place in starts(text, folder) if is_there(place)), None)


def starts(text: str, folder: Path) -> tuple[Path, ...]:
    """Where a path may be: in the study file's folder, then in the checkout; an absolute path only where it says."""
    places = (absolute(text, folder), absolute(text, CHECKOUT))
    return tuple(dict.fromkeys(places))


def absolute(text: str, folder: Path) -> Path:
    """The path as it is from that folder, `~` and `..` resolved, links kept."""
    return Path(os.path.abspath(folder / os.path.expanduser(text)))


def file_path(text: str, folder: Path) -> str:
    """A file's absolute path; one that is nowhere would be in the study file's folder."""
    return str(find(text, folder) or absolute(text, folder))


def hub_or_path(text: str, folder: Path) -> str:
    """A hub id as it is, anything else as `file_path`; what could be both is a path where there is something."""
    if find(text, folder) is None and is_hub_id(text):
        return text
    return file_path(text, folder)


def is_url(text: str) -> bool:
    """Whether the text names a place by URL, such as `s3://bucket/runs`."""
    return _URL.fullmatch(text) is not None


def is_hub_id(text: str) -> bool:
    """Whether the text has a hub id's form, and no data or model file's ending."""
    return _HUB_ID.fullmatch(text) is not None and not text.lower().endswith(_FILE_ENDINGS)
