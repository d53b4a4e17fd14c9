"""A small valid study file, others that differ from it in single values, and what reading them gives."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from study.cli.main import main
from study.config.study_config import ConfigError, ConfigFault, StudyConfig, load_study, to_yaml_text
from study.errors import WRONG_INPUT, Absent
from study.strict_yaml import strict_text

ABSENT = object()  # as a change: the key is left out
SPACE: dict[str, Any] = {
    "precision": {"choice": ["fp16", "nf4"]},
    "rank": {"choice": [8, 64]},
    "target_modules": {"choice": ["q_v", "all_linear"]},
    "lora_alpha": {"rank_times": 2},
    "lora_dropout": 0.05,
    "learning_rate": 2e-4,
}
STUDY: dict[str, Any] = {
    "name": "small",
    "base_model": {"path": "meta-llama/Llama-3.2-1B"},
    "dataset": {"name": "pubmedqa", "source": "sample"},
    "space": SPACE,
    "objectives": [
        {"metric": "perplexity", "direction": "minimize", "reference": 12.0},
        {"metric": "peak_memory_bytes", "direction": "minimize", "reference": "14.56 GiB"},
    ],
}


def changed(changes: Mapping[str, Any], study: Mapping[str, Any] = STUDY) -> dict[str, Any]:
    """The study with other values at dotted keys (`objectives.0.metric`); ABSENT leaves a key out."""
    result = copy.deepcopy(dict(study))
    for key, value in changes.items():
        *path, last = key.split(".")
        place: Any = result
        for part in path:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        if value is ABSENT:
            del place[last]
        elif isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value
    return result


def write_study(folder: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """The changed study as a file of that folder."""
    file = folder / "study.yaml"
    file.write_text(strict_text(changed(changes or {})), encoding="utf-8")
    return file


def load_changed(folder: Path, **changes: Any) -> StudyConfig:
    """The changed study, read; `__` in a key stands for a dot."""
    return load_study(write_study(folder, {key.replace("__", "."): value for key, value in changes.items()}))


def read_again(config: StudyConfig, folder: Path) -> StudyConfig:
    """The study after it was written as YAML and read."""
    (folder / "study.yaml").write_text(to_yaml_text(config), encoding="utf-8")
    return load_study(folder / "study.yaml")


def faults_of(file: Path, *overrides: str) -> tuple[ConfigFault, ...]:
    """The faults for which a study file is refused."""
    with pytest.raises(ConfigError) as caught:
        load_study(file, overrides)
    return caught.value.faults


def value_at(study: Any, key: str) -> Any:
    """The value at a dotted key as a fault shows it."""
    for part in key.split("."):
        try:
            study = study[int(part)] if isinstance(study, list) else study[part]
        except KeyError:
            return Absent.MISSING
    return study


def holds_one_fault(folder: Path, changes: Mapping[str, Any], key: str, rule: str, remedy: str, capsys: Any) -> None:
    """Holds that a changed study has just this fault, and that `plan` says it in one line, with exit code 2."""
    file = write_study(folder, changes)
    (fault,) = faults_of(file)
    assert (fault.file, fault.key) == (str(file), key)
    assert rule in fault.rule
    assert remedy in fault.remedy
    present = value_at(changed(changes), key)
    assert repr(fault.value) == repr(present) or (fault.value, present) == (Absent.MISSING, None)
    assert main(["plan", str(file)]) == WRONG_INPUT
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"{fault}\n")
    assert len(err.splitlines()) == 1
