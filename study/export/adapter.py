"""Exports a trial's adapter as a folder: in PEFT's format or merged into the base, and to a hub."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis.load import Study, load_study
from study.config.study_config import load_study as load_settings
from study.errors import Absent, ConfigError
from study.export.model_card import model_card
from study.records.layout import STUDY_FILE, adapter_place, study_file
from study.records.record import TrialRecord
from trainables.guarded_files import FileRefusedError, read_json
from trainables.settings import BaseModelSettings

CARD_FILE = "README.md"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
LONGEST_NAME = 200  # bytes: the folder is made under a longer name first
REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")

Upload = Callable[[str, Path], str]


def export_trial(directory: Path, trial_id: str, target: Path, merge: bool = False) -> Path:
    """Writes a trial's adapter and its model card into `target`, a new or empty folder, and returns it.

    With `merge`, writes the base model in 16 bits with the adapter in it. The folder is whole or not there. Raises
    ConfigError for a trial without an adapter, a target in use, and a base model that cannot be had or has changed.
    """
    from trainables.base_model.checks.faults import BaseModelError

    study_file(directory)
    study = load_study(directory)
    record = _record(study, trial_id)
    adapter = _adapter_folder(study, record)
    _check_adapter(adapter)
    _check_target(target)
    with _made_beside(target) as folder:
        try:
            _fill(folder, study, record, adapter, merge)
        except BaseModelError as error:
            raise ConfigError.of(str(directory), "base_model", Absent.UNSHOWN, str(error), "") from error
        if target.is_dir():
            target.rmdir()  # empty, as was checked
        folder.rename(target)
    return target


def push_folder(folder: Path, repository: str, upload: Upload | None = None) -> str:
    """Uploads an exported folder to a hub repository, made private where it is new, and returns its address.

    The hub's own client takes the token from the environment (HF_TOKEN) or its login; it passes through nothing here.
    Raises ConfigError for a name that no repository can have, or where the hub refuses.
    """
    check_repository(repository)
    try:
        return (upload or _upload)(repository, folder)
    except Exception as error:  # the client raises several kinds, and the network more
        reason = (str(error) or type(error).__name__).splitlines()[0]
        rule = f"must be a hub repository that you may write to; the hub refused ({_without_token(reason)})"
        remedy = "Set HF_TOKEN to a token with write access (https://huggingface.co/settings/tokens), and be online."
        raise ConfigError.of("--push", "", repository, rule, remedy) from error


def check_repository(repository: str) -> None:
    """Raises ConfigError for a name that no repository of the hub can have."""
    if not REPOSITORY.fullmatch(repository):
        rule, remedy = "must be a hub repository as OWNER/NAME", "For example --push my-name/my-adapter."
        raise ConfigError.of("--push", "", repository, rule, remedy)


def _record(study: Study, trial_id: str) -> TrialRecord:
    found = next((record for record in study.records if record.trial_id == trial_id), None)
    if found is not None:
        return found
    rule = "must be a trial of the study that has ended"
    raise ConfigError.of(str(study.directory), "TRIAL", trial_id, rule, _with_adapters(study))


def _adapter_folder(study: Study, record: TrialRecord) -> Path:
    folder = study.directory / (record.adapter or adapter_place(record.trial_id))
    if record.adapter and all((folder / name).is_file() for name in ADAPTER_FILES):
        return folder
    kept = study.settings.get("adapters", "front")
    rule = f"must have an adapter; this one ended as {record.status} and the study keeps adapters: {kept}"
    raise ConfigError.of(str(study.directory), "TRIAL", record.trial_id, rule, _with_adapters(study))


def _with_adapters(study: Study) -> str:
    there = [record.trial_id for record in study.records if _has_adapter(study, record)]
    return f"Trials with an adapter: {', '.join(there)}." if there else "No trial of it has an adapter yet."


def _has_adapter(study: Study, record: TrialRecord) -> bool:
    return bool(record.adapter) and (study.directory / str(record.adapter) / ADAPTER_FILES[1]).is_file()


def _check_adapter(folder: Path) -> None:
    """Raises ConfigError where a file of the adapter is not whole: who loads the export could not tell why."""
    from trainables.base_model.checks.faults import BaseModelError
    from trainables.base_model.checks.safetensors_header import read_header

    settings, weights = (folder / name for name in ADAPTER_FILES)
    remedy = "Copy the study's directory again from where it ran; or train the trial again: `report --budget` says how."
    try:
        if not isinstance(read_json(settings), dict):
            raise ConfigError.of(str(settings), "", Absent.UNSHOWN, "must be an adapter's settings, an object", remedy)
    except (FileRefusedError, OSError) as error:
        reason = error.found if isinstance(error, FileRefusedError) else error.strerror or str(error)
        rule = f"must be an adapter's settings in JSON; {reason}"
        raise ConfigError.of(str(settings), "", Absent.UNSHOWN, rule, remedy) from error
    try:
        read_header(weights)
    except BaseModelError as error:
        fault = error.faults[0]
        raise ConfigError.of(str(weights), fault.key, fault.value, fault.rule, remedy) from error


@contextmanager
def _made_beside(target: Path) -> Iterator[Path]:
    """Yields a folder to fill, beside the target. Raises ConfigError where none can be made."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if len(os.fsencode(target.name)) > LONGEST_NAME:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        made = tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        rule = f"must be a folder that can be made; it cannot ({reason})"
        raise ConfigError.of(str(target), "--to", Absent.UNSHOWN, rule, "Name another one.") from error
    with made as name:
        folder = Path(name) / target.name
        folder.mkdir()
        yield folder


def _check_target(target: Path) -> None:
    if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
        raise ConfigError.of(
            str(target), "--to", Absent.UNSHOWN, "must be a new or an empty folder", "Name another one."
        )


def _fill(folder: Path, study: Study, record: TrialRecord, adapter: Path, merge: bool) -> None:
    from trainables.base_model.hub import base_licence
    from trainables.base_model.location import locate

    settings = _base_settings(study, record)
    if merge:
        files, merged = _merged(folder, settings, record, adapter)
    else:
        merged = None
        for name in ADAPTER_FILES:
            shutil.copyfile(adapter / name, folder / name)
        try:
            files = locate(settings)
        except ValueError:  # an adapter can be exported where its base is no longer at hand
            files = None
    licence, kind = (base_licence(files), files.kind) if files else (None, "folder")
    (folder / CARD_FILE).write_text(model_card(study, record, licence, merged, kind), encoding="utf-8")


def _merged(folder: Path, settings: BaseModelSettings, record: TrialRecord, adapter: Path) -> tuple[Any, str]:
    from trainables.base_model.files import inspect, weights_folder
    from trainables.base_model.location import locate
    from trainables.packed.merged_weights import write_merged  # torch

    files = locate(settings)
    info = inspect(settings)
    if info.shape.four_bit:
        rule = f"must be weights in 16 bits, to merge an adapter into them; these are quantized ({info.shape.four_bit})"
        remedy = "Export the adapter without merging it: PEFT and servers load it over the same checkpoint."
        raise ConfigError.of(STUDY_FILE, "base_model.path", settings.path, rule, remedy)
    sha256 = info.sha256
    if sha256 != record.base_model.get("sha256"):
        rule = f"must be the weights that the trial was trained on (sha256 {record.base_model.get('sha256')})"
        remedy = f"Those at {settings.path} have sha256 {sha256}: bring the earlier ones back."
        raise ConfigError.of(STUDY_FILE, "base_model.path", settings.path, rule, remedy)
    return files, write_merged(weights_folder(files), adapter, folder)


def _base_settings(study: Study, record: TrialRecord) -> BaseModelSettings:
    """The study's base model, at the very revision that the trial had."""
    settings = load_settings(study_file(study.directory)).trial.base_model
    revision = record.base_model.get("revision")
    return replace(settings, revision=revision) if revision else settings


def _upload(repository: str, folder: Path) -> str:
    from huggingface_hub import HfApi

    hub = HfApi()
    hub.create_repo(repository, private=True, exist_ok=True)
    hub.upload_folder(repo_id=repository, folder_path=folder, commit_message=f"Add {folder.name}")
    return f"https://huggingface.co/{repository}"


def _without_token(text: str) -> str:
    """No message may carry a token, whatever the client put into it."""
    return re.sub(r"\bhf_\w+", "hf_…", text)
