"""Reads a study file into a `StudyConfig`, with all its faults at once, and writes it back as YAML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from os.path import isfile
from pathlib import Path
from typing import Any

from search_spaces.parameters import SearchSpace, SpaceError, parse_space
from study.config import search_sections, trial_sections
from study.config.credentials import note_credentials
from study.config.overrides import apply_overrides
from study.config.paths import absolute, find, is_url, starts
from study.config.reader import REQUIRED, Faults, Section
from study.config.rules import Rule, one_of, text
from study.config.search_sections import ConfirmSettings, EarlyStoppingSettings, SearchSettings
from study.errors import ConfigError, ConfigFault
from study.records.objectives import METRICS, Objective
from study.records.units import exact_bytes
from study.strict_yaml import read_yaml, strict_text
from trainables.settings import HardwareSettings, TrialSettings

__all__ = [
    "ConfigError", "ConfigFault", "EarlyStoppingSettings", "SearchSettings", "StudyConfig", "load_study",
    "to_yaml_text",
]  # fmt: skip

ADAPTERS = ("front", "complete", "none")
NAME_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
LONGEST_NAME = 100
DEFAULT_STORAGE = "runs"
STORES = ("s3://", "gs://", "file://")


@dataclass(frozen=True)
class StudyConfig:
    """One study, resolved: every path of this machine is absolute, every default is filled in.

    `file` only names the study file in messages, and does not count when two studies are compared.
    """

    file: str = field(compare=False)
    name: str
    trial: TrialSettings
    space: SearchSpace
    search: SearchSettings
    seeds: tuple[int, ...]
    early_stopping: EarlyStoppingSettings
    objectives: tuple[Objective, ...]
    adapters: str  # which are kept: front, complete, none
    storage: Path | str  # where study directories go: a folder, or an object store's URL
    confirm: ConfirmSettings = field(default_factory=ConfirmSettings)
    loggers: tuple[str, ...] = ()  # beside our own records


def load_study(path: Path | str, overrides: Sequence[str] = ()) -> StudyConfig:
    """Reads a study file, with values replaced by overrides (`a.b=value`, as YAML).

    Raises ConfigError with every fault of the file, its overrides and its space.
    """
    values, wrong = _mapping(path)
    overridden, wrong_overrides = apply_overrides(values, overrides)
    faults = Faults(str(path), overridden)
    faults.extend((*wrong, *wrong_overrides))
    if wrong:  # nothing was read, so there are no keys to check
        faults.raise_any()
    note_credentials(faults, values)
    return _config(str(path), Section(faults, "", values), Path(path).absolute().parent)


def _mapping(path: Path | str) -> tuple[dict[str, Any], tuple[ConfigFault, ...]]:
    """The file's mapping; an empty one, and the faults, where it cannot be read or holds something else."""
    try:
        values = read_yaml(path)
    except ConfigError as error:
        return {}, error.faults
    if isinstance(values, dict):
        return values, ()
    remedy = "Start with for example `name: my-study`."
    return {}, (ConfigFault(str(path), "", values, "must hold the keys of a study", remedy),)


def _config(file: str, study: Section, folder: Path) -> StudyConfig:
    faults = study.faults
    name = study.get("name", _name())
    base_model = trial_sections.base_model(study.section("base_model", "{path: meta-llama/Llama-3.2-1B}"), folder)
    dataset = trial_sections.dataset(study.section("dataset", "{name: pubmedqa, source: sample}"), folder)
    space = _space(study, folder)
    seeds = search_sections.seeds(study)
    search = search_sections.search(study.section("search"), space, seeds, folder)
    training = trial_sections.training(study.section("training"))
    early_stopping = search_sections.early_stopping(study.section("early_stopping"))
    objectives = trial_sections.objectives(study)
    hardware = trial_sections.hardware(study.section("hardware"))
    trial_sections.unmeasured_faults(faults, objectives, dataset, hardware)
    trial_sections.streaming_faults(faults, training, hardware)
    adapters = study.get("adapters", one_of(ADAPTERS), "front")
    generation = trial_sections.generation(study.section("generation"))
    place = study.get("storage", _storage(), DEFAULT_STORAGE)
    storage = place.rstrip("/") if is_url(place) else absolute(place, folder)
    confirm = search_sections.confirm(study.section("confirm"), seeds, search.algorithm)
    loggers = trial_sections.loggers(study)
    study.end()
    faults.raise_any()
    trial = TrialSettings(base_model, dataset, training, generation, hardware, early_stopping.for_trials())
    assert space is not None  # else a fault was raised
    return StudyConfig(
        file, name, trial, space, search, seeds, early_stopping, objectives, adapters, storage, confirm, loggers
    )


def _name() -> Rule:
    def holds(value: Any) -> bool:
        plain = isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and NAME_CHARACTERS.issuperset(value)
        return plain and value[0] not in ".-" and ".." not in value

    rule = (
        f"must be a plain file name: up to {LONGEST_NAME} of the letters A to Z and a to z, digits, `.`, `_` and `-`, "
        "without `..`, and not starting with `.` or `-`"
    )
    return Rule(rule, holds, "my-study", remedy=text().remedy)


def _storage() -> Rule:
    plain = text()
    return Rule(
        "must be a folder's path, or s3://BUCKET/PREFIX or gs://BUCKET/PREFIX",
        lambda value: plain.holds(value) and ("://" not in value or value.startswith(STORES)),
        remedy=plain.remedy,
    )


def _space(study: Section, folder: Path) -> SearchSpace | None:
    value, file = study.raw("space"), None
    example = "search_spaces/paper_grid.yaml"
    if value is REQUIRED:
        study.missing("space", example)
        return None
    if isinstance(value, str):
        file = find(value, folder, isfile)
        if file is None:
            rule = f"must be a file that is there; looked for {' and '.join(map(str, starts(value, folder)))}"
            study.faults.add("space", value, rule, "Check its path, or write the space inline.")
            return None
        try:
            value = read_yaml(file)
        except ConfigError as error:
            study.faults.extend(error.faults)
            return None
    elif not isinstance(value, dict):
        remedy = f"Write for example `space: {example}`."
        study.faults.add("space", value, "must be a path, or parameters and their values", remedy)
        return None
    return _parsed_space(study.faults, value, file)


def _parsed_space(faults: Faults, value: Any, file: Path | None) -> SearchSpace | None:
    try:
        return parse_space(value)
    except SpaceError as error:
        faults.add_space("space", error, file)
    return None


def to_yaml_text(config: StudyConfig) -> str:
    """The study as a complete study file: in any folder `load_study` reads an equal study from it."""
    trial = config.trial
    values = {
        "name": config.name,
        "base_model": asdict(trial.base_model),
        "dataset": asdict(trial.dataset),
        "space": config.space.to_mapping(),
        "search": config.search.to_mapping(),
        "seeds": list(config.seeds),
        "training": asdict(trial.training),
        "early_stopping": {**asdict(config.early_stopping), "rungs": list(config.early_stopping.rungs)},
        "objectives": [_objective_values(objective) for objective in config.objectives],
        "hardware": _hardware_values(trial.hardware),
        "adapters": config.adapters,
        "generation": {**asdict(trial.generation), "prompts": list(trial.generation.prompts)},
        "storage": str(config.storage),
        "confirm": {"seeds": list(config.confirm.seeds)},
        "loggers": list(config.loggers),
    }
    return strict_text(values)


def _objective_values(objective: Objective) -> dict[str, Any]:
    in_bytes = METRICS[objective.metric].unit == "bytes"
    return {
        "metric": objective.metric,
        "direction": objective.direction,
        "reference": exact_bytes(int(objective.reference)) if in_bytes else objective.reference,
    }


def _hardware_values(hardware: HardwareSettings) -> dict[str, Any]:
    values = asdict(hardware)
    limit = values.pop("memory_limit_bytes")
    return {**values, "memory_limit": None if limit is None else exact_bytes(limit)}
