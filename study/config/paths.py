"""Finds the paths of a study file: a relative one starts at the study file's folder, then at the checkout."""

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
    """The first existing place that this path may mean; None where there is none."""
    # Not Path.exists, which raises where a name is too long.
    return next((place for place in starts(text, folder) if is_there(place)), None)


def starts(text: str, folder: Path) -> tuple[Path, ...]:
    """The places that a path may mean: in the study file's folder, then in the checkout; an absolute path means one."""
    places = (absolute(text, folder), absolute(text, CHECKOUT))
    return tuple(dict.fromkeys(places))


def absolute(text: str, folder: Path) -> Path:
    """The path from that folder, with `~` and `..` resolved and links kept."""
    return Path(os.path.abspath(folder / os.path.expanduser(text)))


def file_path(text: str, folder: Path) -> str:
    """A file's absolute path; if it does not exist, the one in the study file's folder."""
    return str(find(text, folder) or absolute(text, folder))


def hub_or_path(text: str, folder: Path) -> str:
    """A hub id as it is, anything else as `file_path`; a text that could be both is a path where that exists."""
    if find(text, folder) is None and is_hub_id(text):
        return text
    return file_path(text, folder)


def is_url(text: str) -> bool:
    """Whether the text names a place by URL, such as `s3://bucket/runs`."""
    return _URL.fullmatch(text) is not None


def is_hub_id(text: str) -> bool:
    """Whether the text has a hub id's form, and no data or model file's ending."""
    return _HUB_ID.fullmatch(text) is not None and not text.lower().endswith(_FILE_ENDINGS)
