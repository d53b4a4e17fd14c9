"""Takes trials of earlier studies into a search, and says why it refuses the others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.load import Study, StudyDirectoryError, load_study
from search_spaces.parameters import SearchSpace, SpaceError
from search_spaces.points import parse_point, point_of
from study.config.study_config import ConfigError, ConfigFault, StudyConfig
from study.hardware.machine import find_cards
from study.records.objectives import Objective, objective_values
from study.records.record import TrialRecord
from study.search.study_search import Earlier
from trainables.comparability import EARLIER, comparable_hashes, cpu_device_name, offloaded_cost
from trainables.settings import HardwareSettings

QUALITY = ("perplexity", "accuracy")  # does not depend on the device; all other metrics are cost
WITHOUT_EFFECT = ("gradient_checkpointing", "evaluations")  # of training's settings, on quality


@dataclass(frozen=True)
class WarmStart:
    """The trials of one earlier study that are taken, and how many are refused for each reason."""

    directory: Path
    taken: tuple[Earlier, ...]
    refused: Mapping[str, int]

    def __str__(self) -> str:
        total = len(self.taken) + sum(self.refused.values())
        text = f"Warm start from {self.directory}: {len(self.taken)} of {total} trials taken"
        reasons = "; ".join(f"{count} not: {reason}" for reason, count in self.refused.items())
        return f"{text}; {reasons}." if reasons else f"{text}."


def read_warm_starts(config: StudyConfig) -> list[WarmStart]:
    """The trials in the study's `search.warm_start` directories; inspects model and data to compare, loads no weights.

    Raises ConfigError with a fault for each directory that cannot be read, or from which nothing can be taken.
    """
    if not config.search.warm_start:
        return []
    studies = earlier_studies(config)
    ours = _comparable(config)
    found, faults = [warm_start(one, config, ours) for one in studies], []
    for place, one in enumerate(found):
        if not one.taken:
            reasons = "; ".join(f"{count}: {reason}" for reason, count in one.refused.items()) or "it has no trials"
            rule = f"must have trials that compare with this study's ({reasons})"
            faults.append(ConfigFault(config.file, _key(place), one.directory, rule, "Leave it out."))
    if faults:
        raise ConfigError(faults)
    return found


def earlier_studies(config: StudyConfig) -> list[Study]:
    """The studies in `search.warm_start`, not compared yet. Raises ConfigError with every directory that holds none."""
    found, faults = [], []
    for place, directory in enumerate(config.search.warm_start):
        try:
            found.append(load_study(directory))
        except StudyDirectoryError as error:
            rule = f"must be a study's directory: {error}"
            faults.append(ConfigFault(config.file, _key(place), directory, rule, ""))
    if faults:
        raise ConfigError(faults)
    return found


def _key(place: int) -> str:
    return f"search.warm_start.{place}"


def warm_start(earlier: Study, config: StudyConfig, comparable: Mapping[str, str]) -> WarmStart:
    """Parts an earlier study's trials into those taken and those refused; `comparable` are this study's hashes."""
    taken: list[Earlier] = []
    refused: Counter[str] = Counter()
    other_training = training_differences(earlier.settings.get("training") or {}, config)
    had_less = _room(earlier.memory_limit) < _room(config.trial.hardware.memory_limit_bytes)
    for record in earlier.records:
        hashes = {**comparable, "cost": _cost_here(record, earlier, config, comparable["cost"])}
        reason = other_training or refusal(record, config.space, config.objectives, hashes)
        if reason is None and record.status == "infeasible" and had_less:
            reason = "did not fit under a smaller memory limit than this study's"
        if reason:
            refused[reason] += 1
        else:
            taken.append(Earlier(f"{earlier.directory}/{record.trial_id}", record))
    return WarmStart(earlier.directory, tuple(taken), dict(refused))


def _cost_here(record: TrialRecord, earlier: Study, config: StudyConfig, resident: str) -> str:
    """The hash of what the record's configuration costs in this study; empty where that is not known.

    As much of its training waits in host memory here where both studies plan for the same; else just where nothing
    waits, neither there nor here.
    """
    hardware = config.trial.hardware
    asked = (earlier.settings.get("hardware") or {}).get("base_in_host_memory", HardwareSettings.base_in_host_memory)
    if (asked, earlier.memory_limit) == (hardware.base_in_host_memory, hardware.memory_limit_bytes):
        return offloaded_cost(resident, record.offload)
    return "" if hardware.base_in_host_memory == "always" else resident


def _room(memory_limit: float | None) -> float:
    return math.inf if memory_limit is None else memory_limit


def refusal(
    record: TrialRecord, space: SearchSpace, objectives: Sequence[Objective], comparable: Mapping[str, str]
) -> str | None:
    """Why a search over this space may not use the record; None where it may."""
    if record.status == "failed":
        return "failed for a reason that is none of its configuration"
    costs = [one.metric for one in objectives if one.metric not in QUALITY]
    if record.comparable.get("quality") != comparable["quality"]:
        return "another base model, data, split or length"
    if (costs or record.status == "infeasible") and record.comparable.get("cost") != comparable["cost"]:
        return "measured on another device, with another batch or offload, or by another version of the engine"
    if record.status == "complete" and objective_values(record.measurements, objectives) is None:
        return "an objective was not measured"
    try:
        parse_point(space, point_of(record.config), 0)
    except SpaceError as error:
        return f"outside the space ({', '.join(fault.key for fault in error.faults)})"
    return None


def training_differences(earlier: Mapping[str, Any], config: StudyConfig) -> str | None:
    """Why results of an earlier study's training do not compare with this one's; None where they do."""
    training = config.trial.training
    names = [name for name in vars(training) if name not in WITHOUT_EFFECT]
    before = {**{name.removeprefix("training."): value for name, value in EARLIER.items()}, **earlier}
    other = [name for name in names if name in before and before[name] != getattr(training, name)]
    return f"trained with other {', '.join(other)}" if other else None


def _comparable(config: StudyConfig) -> Mapping[str, str]:
    # Here and not above: the readers of models and data, which a study without a warm start does not need.
    from trainables.base_model.files import inspect
    from trainables.base_model.tokenizer import load_tokenizer
    from trainables.dataset.prepared import prepare_dataset

    trial = config.trial
    fingerprint = prepare_dataset(trial.dataset, load_tokenizer(trial.base_model), answers=False).fingerprint
    return comparable_hashes(inspect(trial.base_model).sha256, fingerprint, trial, _device_name(trial.hardware.gpu))


def _device_name(gpu: str) -> str:
    """The name that records will give to this machine's device."""
    cards = find_cards().cards if gpu != "cpu" else ()
    return cards[0].name if cards else cpu_device_name()
