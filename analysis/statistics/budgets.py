"""Chooses the configuration for a memory budget, and computes what the budget costs in quality."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.pareto import QUALITY_METRICS, TOLERANCE, relative_loss
from study.records.infeasible import needed_bytes
from study.records.objectives import METRICS, Objective, objective_values
from study.records.record import TrialRecord
from study.records.units import GIB

T4 = round(14.56 * GIB)  # what such a card has free for a process
BUDGETS = (8 * GIB, 12 * GIB, T4, 24 * GIB)


@dataclass(frozen=True)
class BudgetCard:
    """The trial to take under one budget.

    `memory_bytes` is what the trial needs of it. `quality` stands in its metric's own unit and direction; `loss` is by
    how much it is worse, relatively, than the best complete trial of the study whatever that needs: the price of the
    budget.
    """

    budget_bytes: float
    tolerance: float
    record: TrialRecord
    quality: float
    memory_bytes: float
    loss: float

    @property
    def spare_bytes(self) -> float:
        """What the budget leaves free."""
        return self.budget_bytes - self.memory_bytes

    @property
    def is_near_best(self) -> bool:
        """Whether the budget costs no more quality than the tolerance."""
        return self.loss <= self.tolerance


def best_within(
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    budget_bytes: float,
    tolerance: float = TOLERANCE,
    of_process: bool = False,
) -> BudgetCard | None:
    """The cheapest trial within a relative tolerance of the best quality that the budget allows.

    Only complete trials with finite quality and memory count; a trial fits that needs at most `budget_bytes` of a card:
    the allocator's hold and CUDA's context, or `of_process` the hold alone (`study.records.infeasible`).
    Among those that fit and are within the tolerance of the best that fits, the least memory wins, then the better
    quality, then the earlier record. None where nothing fits. Raises ValueError for a budget or a tolerance that is
    negative or not finite.
    """
    for name, value in (("budget_bytes", budget_bytes), ("tolerance", tolerance)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a finite number of at least 0; it is {value!r}")
    quality = quality_objective(objectives)
    known = _known(records, objectives, of_process)
    fitting = [each for each in known if each[2] <= budget_bytes]
    if not fitting:
        return None
    top = min(quality.to_minimize(value) for _, value, _ in fitting)
    near = [each for each in fitting if relative_loss(quality.to_minimize(each[1]), top) <= tolerance]
    record, value, memory = min(near, key=lambda each: (each[2], quality.to_minimize(each[1])))
    best_of_all = min(quality.to_minimize(each[1]) for each in known)
    loss = relative_loss(quality.to_minimize(value), best_of_all)
    return BudgetCard(budget_bytes, tolerance, record, value, memory, loss)


def least_memory(
    records: Sequence[TrialRecord], objectives: Sequence[Objective], of_process: bool = False
) -> float | None:
    """The smallest budget in bytes that any complete trial fits; None without one."""
    return min((memory for _, _, memory in _known(records, objectives, of_process)), default=None)


def quality_objective(objectives: Sequence[Objective]) -> Objective:
    """The study's first objective that is a quality; perplexity, which is always measured, where it has none."""
    qualities = (objective for objective in objectives if objective.metric in QUALITY_METRICS)
    return next(qualities, Objective("perplexity", "minimize", math.inf))


def memory_metric(objectives: Sequence[Objective]) -> str:
    """The study's objective in bytes, whose reference is its budget, else the peak while training alone."""
    metrics = (objective.metric for objective in objectives if METRICS[objective.metric].unit == "bytes")
    return next(metrics, "peak_memory_bytes")


def _known(
    records: Sequence[TrialRecord], objectives: Sequence[Objective], of_process: bool
) -> list[tuple[TrialRecord, float, float]]:
    """The complete trials with their quality and the memory that they need, where both are finite."""
    pair = (quality_objective(objectives),)
    known = []
    for record in records:
        values = objective_values(record.measurements, pair) if record.status == "complete" else None
        memory = needed_bytes(record.measurements, of_process)
        if values is not None and memory is not None:
            known.append((record, values[0], memory))
    return known
