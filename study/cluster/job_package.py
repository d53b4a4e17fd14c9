"""Packs the files of a job: our rooms, the study as resolved here, the data files that it names."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from study.checkout import CHECKOUT, ROOMS
from study.config.study_config import StudyConfig, to_yaml_text
from study.environment.provenance import PACKED_GIT_FILE, git_state
from study.errors import ConfigError
from study.records.layout import STUDY_FILE
from study.records.units import format_bytes

JOB_FOLDER = "job"
JOB_STUDY_FILE = f"{JOB_FOLDER}/{STUDY_FILE}"
LEFT_OUT = frozenset({"__pycache__", ".git", ".ipynb_checkpoints"})
DATA_FILES = ("source", "train_file", "eval_file", "test_file")
MOST_DATA_BYTES = 100 * 2**20  # all of the data files; Ray keeps a job's package in the head's memory
ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the same content gives the same package, which Ray then does not send again


@dataclass(frozen=True)
class JobPackage:
    """The files of a job: those that lie here, and the text of those that are made for it, by their place in it."""

    files: Mapping[str, Path]
    texts: Mapping[str, str]


def job_package(config: StudyConfig, checkout: Path = CHECKOUT) -> JobPackage:
    """Returns the files of a job of this study. Raises ConfigError where its data files are too large to be sent.

    Data files of this machine go with it, under the names they have in the package; what is no file here is taken to
    be a hub id, or a path that all nodes have. The commit goes with it too, for the provenance.
    """
    dataset, files = config.trial.dataset, dict[str, Path]()
    sent: dict[str, Any] = {}
    for key in DATA_FILES:
        here = getattr(dataset, key)
        if here is not None and os.path.isfile(here):
            name = f"{key}{Path(here).suffix}"
            files[f"{JOB_FOLDER}/{name}"] = Path(here)
            sent[key] = name  # paths start at the study file's folder
    _check_size(config.file, files)
    study = replace(config, trial=replace(config.trial, dataset=replace(dataset, **sent)))
    code = {file.relative_to(checkout).as_posix(): file for file in _code(checkout)}
    texts = {JOB_STUDY_FILE: to_yaml_text(study), PACKED_GIT_FILE: json.dumps(git_state(checkout))}
    return JobPackage({**code, **files}, texts)


def write_package(package: JobPackage, target: Path) -> Path:
    """Writes the package as a zip file, the same bytes for the same content, and returns its path."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        for place in sorted({*package.files, *package.texts}):
            text = package.texts.get(place)
            content = package.files[place].read_bytes() if text is None else text.encode("utf-8")
            out.writestr(zipfile.ZipInfo(place, ZIP_TIME), content, zipfile.ZIP_DEFLATED)
    return target


def code_package(checkout: Path = CHECKOUT) -> JobPackage:
    """Returns the rooms alone, which a cluster's other nodes need where a study is started on one without a job."""
    return JobPackage({file.relative_to(checkout).as_posix(): file for file in _code(checkout)}, {})


def _code(checkout: Path) -> Iterator[Path]:
    yield checkout / "pyproject.toml"
    for room in ROOMS:
        for folder, names, files in os.walk(checkout / room):
            names[:] = sorted(name for name in names if name not in LEFT_OUT)
            yield from (Path(folder) / name for name in sorted(files) if not name.endswith((".pyc", ".swp")))


def _check_size(file: str, data: Mapping[str, Path]) -> None:
    total = sum(path.stat().st_size for path in data.values())
    if total > MOST_DATA_BYTES:
        rule = f"must be at most {format_bytes(MOST_DATA_BYTES)} together to be sent with a job"
        remedy = "Put them where all nodes can read them, and give that path, or a hub id."
        raise ConfigError.of(file, "dataset", format_bytes(total), rule, remedy)
