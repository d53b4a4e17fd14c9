"""The memory of configurations, known before their trials: predicted, and corrected by what was measured."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search_spaces.footprint import Footprint
from search_spaces.trial_config import TrialConfig
from study.records.objectives import Objective

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

MemoryOf = Callable[[TrialConfig], float]  # bytes


@dataclass(frozen=True)
class KnownCost:
    """Two objectives, both minimized: a quality that trials show, and a memory that is known of every configuration.

    `quality` and `cost` are their places among the objectives' values; `logarithmic` where the quality is above 0 and
    its errors are relative. `memory_of` predicts bytes, `limit_bytes` is the most memory that there is.
    """

    quality: int
    cost: int
    reference: tuple[float, float]  # of quality and memory: what is worse adds nothing
    logarithmic: bool
    memory_of: MemoryOf
    limit_bytes: float = math.inf


def known_cost_of(objectives: Sequence[Objective], memory_of: MemoryOf, limit_bytes: float | None) -> KnownCost | None:
    """What of a study's objectives is known before a trial; None where they are not perplexity and peak memory."""
    sought = {one.metric: place for place, one in enumerate(objectives) if one.direction == "minimize"}
    if set(sought) != {"perplexity", "peak_memory_bytes"} or len(objectives) != 2:
        return None
    quality, cost = sought["perplexity"], sought["peak_memory_bytes"]
    reference = (objectives[quality].reference, objectives[cost].reference)
    return KnownCost(quality, cost, reference, True, memory_of, math.inf if limit_bytes is None else limit_bytes)


def measured_first(history: Sequence[FrozenTrial], known: KnownCost) -> MemoryOf:
    """Each configuration's memory: measured where its footprint was measured, else predicted and corrected.

    The correction is the median error of the predictions of its precision.
    """
    from study.search.trial_attributes import config_of, is_complete  # not above: a plan needs no Optuna

    measured: dict[Footprint, float] = {}
    errors: dict[str, list[float]] = {}
    for trial in history:
        values = trial.values if is_complete(trial) else trial.user_attrs.get("values_so_far")
        if values:
            config, value = config_of(trial), float(values[known.cost])
            measured[Footprint.of(config)] = value
            errors.setdefault(config.precision, []).append(value - known.memory_of(config))
    shift = {precision: statistics.median(found) for precision, found in errors.items()}

    def memory_of(config: TrialConfig) -> float:
        key = Footprint.of(config)
        return measured[key] if key in measured else known.memory_of(config) + shift.get(config.precision, 0.0)

    return memory_of


def memory_bound(history: Sequence[FrozenTrial], known: KnownCost, memory_of: MemoryOf) -> Callable[[str], float]:
    """The bytes that a configuration of a precision must stay below: the limit, and what did not fit."""
    from study.search.trial_attributes import config_of  # not above: a plan needs no Optuna

    bound: dict[str, float] = {}
    for trial in history:
        if trial.user_attrs.get("status") == "infeasible":
            config = config_of(trial)
            bound[config.precision] = min(bound.get(config.precision, math.inf), memory_of(config))
    return lambda precision: min(known.limit_bytes, bound.get(precision, math.inf))
