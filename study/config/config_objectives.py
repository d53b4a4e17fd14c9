"""The objectives of a study file, and which of them its data and hardware can give numbers for. (no torch, no ray)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from study.config.reader import REQUIRED, Faults, Section
from study.config.rules import Rule, list_of, number, one_of, size
from study.records.objectives import METRICS, Direction, Objective
from trainables.settings import DatasetSettings, HardwareSettings

CARD_METRICS = ("peak_reserved_bytes", "peak_device_bytes", "energy_joules")  # no CPU has them


def read_objectives(study: Section) -> tuple[Objective, ...]:
    """The study's goals: 2 to 4 distinct metrics."""
    example = "[{metric: perplexity, direction: minimize, reference: 20}, ...]"
    values = study.get("objectives", list_of(2, 4, "objectives", example))
    found: list[Objective] = []
    for place, value in enumerate(() if values is REQUIRED else values):
        objective = _objective(study.part(f"objectives.{place}", value, ""))
        if objective.metric in METRICS and objective.metric in [one.metric for one in found]:
            study.repeated(f"objectives.{place}.metric", objective.metric)
        found.append(objective)
    return tuple(found)


def _objective(section: Section) -> Objective:
    metric = section.get("metric", one_of(METRICS, "perplexity"))
    own = METRICS.get(metric)
    direction = section.get("direction", one_of(get_args(Direction), own.direction if own else "minimize"))
    reference = section.get("reference", _reference(metric)) if own else section.raw("reference")
    section.end()
    return Objective(metric, direction, reference)


def _reference(metric: str) -> Rule:
    if METRICS[metric].unit == "bytes":
        return size()
    return number(0, 1, example="0.3") if METRICS[metric].unit == "fraction" else number(0, 10**15, example="20")


def unmeasured_faults(
    faults: Faults, objectives: Sequence[Objective], data: DatasetSettings, hardware: HardwareSettings
) -> None:
    """Notes objectives that no trial of the study would have a number for."""
    for place, objective in enumerate(objectives):
        key = f"objectives.{place}.metric"
        labelled = data.name == "pubmedqa" and data.train_file is None
        if objective.metric == "accuracy" and not labelled and faults.clean("dataset"):
            rule = "must be measured on the data; answers have labels only in pubmedqa's own rows"
            faults.add(key, objective.metric, rule, "Choose another metric, or `dataset.name: pubmedqa`.")
        if objective.metric in CARD_METRICS and hardware.gpu == "cpu":
            rule = "must be measured on the hardware; only a GPU has it, and hardware.gpu is cpu"
            faults.add(key, objective.metric, rule, "Choose `peak_memory_bytes` or another metric.")
