"""Makes a study's directory, fetches it from an object store, and removes the adapters that are not kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from datetime import datetime
from pathlib import Path

from study.cluster.object_store import fetch, is_ahead
from study.config.paths import is_url
from study.config.study_config import StudyConfig
from study.output import resume_command
from study.records.layout import (
    ADAPTERS_FOLDER,
    BASIS_FILE,
    PROVENANCE_FILE,
    RESULTS_FILE,
    STUDY_FILE,
    directory_error,
)
from study.records.record import TrialRecord
from trainables.user_cache import cache_root

TIME_FORM = "%Y%m%d-%H%M%S"
_UNDER_WAY = tuple(f".{name}." for name in (PROVENANCE_FILE, BASIS_FILE, STUDY_FILE))  # of `write_whole`


def check_free(out: Path) -> None:
    """Raises ConfigError where a study may not begin there: a study is there already, or anything else."""
    if (out / STUDY_FILE).exists() or (out / RESULTS_FILE).exists():
        remedy = f"To continue the study that is there: {resume_command(out)}"
        raise directory_error(out, "must not hold a study already", remedy, "--out")
    if out.exists() and not out.is_dir():
        raise directory_error(out, "must be a directory, and is a file", "Name another.", "--out")
    if out.is_dir() and any(not _was_left(file) for file in out.iterdir()):
        raise directory_error(out, "must be empty, or not there yet", "Name another.", "--out")


def _was_left(file: Path) -> bool:
    """Whether a file is what a run leaves that was killed before its study had begun."""
    return file.is_file() and (file.name in (PROVENANCE_FILE, BASIS_FILE) or file.name.startswith(_UNDER_WAY))


def make_directory(config: StudyConfig, out: Path | None, now: datetime) -> Path:
    """Makes and returns a study's directory: `out`, or `storage/NAME-date-time`.

    Raises ConfigError where that cannot be made.
    """
    try:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            return out.absolute()
        folder = config.storage if isinstance(config.storage, Path) else staging_folder()
        folder.mkdir(parents=True, exist_ok=True)
        return _first_free(folder / f"{config.name}-{now.strftime(TIME_FORM)}").absolute()
    except OSError as error:
        where = "--out" if out else "storage"
        reason = f"must be a place for a new directory: {error.strerror or error}"
        raise directory_error(Path(out or config.storage), reason, "Name another.", where) from error


def prune_adapters(directory: Path, policy: str, records: Sequence[TrialRecord], front_ids: Collection[str]) -> None:
    """Removes the adapters that the policy does not keep: `front`, `complete` or `none`.

    It may be done before all trials have ended: a trial that is dominated stays so. Behind a link nothing is removed:
    what it leads to may be somebody's own.
    """
    complete = {record.trial_id for record in records if record.status == "complete"}
    kept = {"front": set(front_ids), "complete": complete, "none": set[str]()}[policy]
    folder = directory / ADAPTERS_FOLDER
    for adapter in sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []:
        if adapter.name not in kept and adapter.is_dir() and not adapter.is_symlink():
            shutil.rmtree(adapter)


def staging_folder() -> Path:
    """Returns where this machine keeps the studies whose storage is an object store."""
    return cache_root() / "studies"


def here(place: str) -> Path:
    """Returns a study's directory on this machine; one in an object store is fetched where this machine knows less.

    Raises StoreError where the store cannot be read.
    """
    if not is_url(place):
        return Path(os.path.expanduser(place))
    directory = staging_folder() / place.rstrip("/").rpartition("/")[2]
    url = place.rstrip("/")
    if not (directory / STUDY_FILE).is_file() or is_ahead(url, directory):  # else the store lags behind this machine
        fetch(url, directory)
    return directory


def _first_free(wanted: Path) -> Path:
    """Makes the directory, or where another study began in the same second, one beside it."""
    place, number = wanted, 1
    while True:
        try:
            place.mkdir()
            return place
        except FileExistsError:
            number += 1
            place = wanted.with_name(f"{wanted.name}-{number}")
