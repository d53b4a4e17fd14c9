"""Packs the files of a job: our rooms, the study as resolved here, the data files that it names."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from study.checkout import CHECKOUT
from study.cluster.package_files import checkout_files
from study.config.study_config import StudyConfig, to_yaml_text
from study.environment.git import git_state
from study.environment.provenance import PACKED_GIT_FILE
from study.errors import Absent, ConfigError, printable
from study.output import plural
from study.records.layout import STUDY_FILE
from study.records.units import format_bytes
from trainables.guarded_files import MIB, read_bytes

JOB_FOLDER = "job"
JOB_STUDY_FILE = f"{JOB_FOLDER}/{STUDY_FILE}"
DATA_FILES = ("source", "train_file", "eval_file", "test_file")
MOST_CODE_BYTES = 50 * MIB
MOST_SHOWN = 5  # names of files that stay here
MOST_DATA_BYTES = 100 * MIB  # all of the data files; Ray keeps a job's package in the head's memory
ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the same content gives the same package, which Ray then does not send again


@dataclass(frozen=True)
class JobPackage:
    """The files of a job: those that lie here, and the text of those that are made for it, by their place in it."""

    files: Mapping[str, Path]
    texts: Mapping[str, str]
    untracked: tuple[str, ...] = ()  # files of the rooms that stay here, since git does not know them
    by_git: bool = True  # whether git said which files are code; else their endings did


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
    code = checkout_files(checkout)
    _check_code(code.files)
    study = replace(config, trial=replace(config.trial, dataset=replace(dataset, **sent)))
    texts = {JOB_STUDY_FILE: to_yaml_text(study), PACKED_GIT_FILE: json.dumps(git_state(checkout))}
    return JobPackage({**code.files, **files}, texts, code.untracked, code.by_git)


def write_package(package: JobPackage, target: Path) -> Path:
    """Writes the package as a zip file, the same bytes for the same content, and returns its path."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        for place in sorted({*package.files, *package.texts}):
            text = package.texts.get(place)
            content = read_bytes(package.files[place], MOST_DATA_BYTES) if text is None else text.encode("utf-8")
            out.writestr(zipfile.ZipInfo(place, ZIP_TIME), content, zipfile.ZIP_DEFLATED)
    return target


def code_package(checkout: Path = CHECKOUT) -> JobPackage:
    """Returns the rooms alone, which a cluster's other nodes need where a study is started on one without a job."""
    code = checkout_files(checkout)
    _check_code(code.files)
    return JobPackage(code.files, {}, code.untracked, code.by_git)


def package_text(package: JobPackage) -> str:
    """Returns what leaves this machine, and how large it is: code, data by name; and which code stays."""
    data = {name: path for name, path in package.files.items() if name.startswith(f"{JOB_FOLDER}/")}
    code = [path for name, path in package.files.items() if name not in data]
    how = "that git tracks" if package.by_git else "chosen by their endings, as git tracks none here"
    lines = [f"Sent: {plural(len(code), 'file')} of code {how} ({_size(code)})"]
    lines += [f"Sent: {path} as {name} ({_size([path])})" for name, path in data.items()]
    return "\n".join([*lines, *filter(None, [untracked_text(package)])])


def untracked_text(package: JobPackage) -> str:
    """Returns which files of the packages stay here, since git does not track them; an empty text for none."""
    if not package.untracked:
        return ""
    shown = ", ".join(printable(name, 80) for name in package.untracked[:MOST_SHOWN])
    more = len(package.untracked) - MOST_SHOWN
    others = f", and {more} more" if more > 0 else ""
    count = plural(len(package.untracked), "file")
    return f"Not sent: {count} that git does not track ({shown}{others}); `git add` what the study needs."


def _size(files: Iterable[Path]) -> str:
    return format_bytes(sum(path.stat().st_size for path in files))


def _check_code(code: Mapping[str, Path]) -> None:
    sizes = {name: path.stat().st_size for name, path in code.items()}
    if sum(sizes.values()) > MOST_CODE_BYTES:
        largest = max(sizes, key=lambda name: sizes[name])
        rule = f"must be at most {format_bytes(MOST_CODE_BYTES)} of code together; {largest} alone has"
        remedy = "Move what is no code out of the checkout's packages, or have git ignore it."
        raise ConfigError.of(largest, "", Absent.UNSHOWN, f"{rule} {format_bytes(sizes[largest])}", remedy)


def _check_size(file: str, data: Mapping[str, Path]) -> None:
    total = sum(path.stat().st_size for path in data.values())
    if total > MOST_DATA_BYTES:
        rule = f"must be at most {format_bytes(MOST_DATA_BYTES)} together to be sent with a job"
        remedy = "Put them where all nodes can read them, and give that path, or a hub id."
        raise ConfigError.of(file, "dataset", format_bytes(total), rule, remedy)
