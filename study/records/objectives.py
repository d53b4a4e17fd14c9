"""What a study optimizes: metrics, their directions, units and reference values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Metric:
    """A measurement that can be an objective: its name in a record, its unit, and the direction that is better."""

    name: str
    unit: str
    direction: Direction
    label: str


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("perplexity", "", "minimize", "Perplexity"),
        Metric("accuracy", "fraction", "maximize", "Answer accuracy"),
        Metric("peak_memory_bytes", "bytes", "minimize", "Peak memory"),
        Metric("peak_reserved_bytes", "bytes", "minimize", "Peak reserved memory"),
        Metric("peak_device_bytes", "bytes", "minimize", "Peak device memory"),
        Metric("train_tokens_per_second", "tokens/s", "maximize", "Training speed"),
        Metric("generated_tokens_per_second", "tokens/s", "maximize", "Generation speed"),
        Metric("seconds_per_epoch", "s", "minimize", "Time per epoch"),
        Metric("energy_joules", "J", "minimize", "Energy"),
        Metric("trainable_parameters", "", "minimize", "Trainable parameters"),
    )
}


@dataclass(frozen=True)
class Objective:
    """One goal of a study; `reference` is the worst value that still counts toward the hypervolume."""

    metric: str
    direction: Direction
    reference: float

    @property
    def unit(self) -> str:
        """The metric's unit, empty where it has none."""
        return METRICS[self.metric].unit

    @property
    def label(self) -> str:
        """The metric's name for people."""
        return METRICS[self.metric].label

    def to_minimize(self, value: float) -> float:
        """Returns the value as the core sees it: less is better."""
        return value if self.direction == "minimize" else -value


def objective_values(measurements: Mapping[str, Any], objectives: Sequence[Objective]) -> tuple[float, ...] | None:
    """Returns a trial's objective values in their own directions; None where any is missing or not finite."""
    values = [measurements.get(objective.metric) for objective in objectives]
    if any(value is None or not math.isfinite(value) for value in values):
        return None
    return tuple(float(value) for value in values if value is not None)
