"""Values, configurations and the study's answer in words for people."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from analysis.load import Study
from analysis.pareto import QUALITY_METRICS, balanced, best, cost_index, front, quality_index
from study.objectives import METRICS, Objective
from study.records import STATUSES, TrialRecord

DASH = "–"
GIB = 2**30
NEAR = 0.02  # how much worse than the best a trial may be and still count as near it


def format_value(metric: str, value: float | None) -> str:
    """A measurement with its unit, for example `6.32 GiB`; a dash where it is missing or not finite."""
    if value is None or not math.isfinite(value):
        return DASH
    unit = METRICS[metric].unit if metric in METRICS else ""
    if unit == "bytes" or metric.endswith("_bytes"):
        return f"{value / GIB:,.2f} GiB" if value >= GIB / 10 else f"{value / 2**20:,.1f} MiB"
    if unit == "fraction" or metric.endswith("accuracy"):
        return f"{100 * value:.1f} %"
    if metric.endswith("seconds") or metric.startswith("seconds"):
        return format_duration(value)
    if unit == "J":
        return f"{value / 1000:,.4g} kJ" if value >= 1000 else f"{value:.3g} J"
    if metric == "trainable_parameters":
        return f"{value / 1e6:,.2f} M" if value >= 1e5 else f"{value:,.0f}"
    return format_number(value)


def format_number(value: float) -> str:
    """Four significant digits, whole numbers from 1,000 up."""
    if abs(value) >= 1e7:
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:#.4g}"


def format_duration(seconds: float) -> str:
    """Seconds as `12.3 s`, `4 min 05 s` or `2 h 07 min`."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    if seconds < 3600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes:02} min"


def configuration_name(record: TrialRecord) -> str:
    """What was sampled, in short: `nf4, rank 8, q_v, learning rate 2e-4`."""
    config, rate = record.config, format_rate(record.config.learning_rate)
    return f"{config.precision}, rank {config.rank}, {config.target_set}, learning rate {rate}"


def format_rate(rate: float) -> str:
    """A learning rate as `2e-4`: three significant digits."""
    mantissa, exponent = f"{rate:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def count_statuses(records: Sequence[TrialRecord]) -> str:
    """`8 trials: 6 complete, 1 infeasible, 1 failed`."""
    counts = Counter(str(record.status) for record in records)
    parts = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
    return f"{len(records)} {'trial' if len(records) == 1 else 'trials'}" + (f": {parts}" if parts else "")


def budget(study: Study, objective: Objective) -> float:
    """The worst value of a cost that the user can afford: the study's memory limit, else the objective's reference."""
    limit = study.memory_limit
    return limit if limit is not None and METRICS[objective.metric].unit == "bytes" else objective.reference


def headline(study: Study) -> str:
    """The study's answer: the best trial within the budget, and the cheapest that is nearly as good."""
    if not study.records:
        return "No trial has ended yet."
    members = front(study.records, study.objectives)
    if not members:
        return f"No complete trial, so there is no front ({count_statuses(study.records)})."
    cost, quality = study.objectives[cost_index(study.objectives)], study.objectives[quality_index(study.objectives)]
    bound = budget(study, cost)
    within = [record for record in members if _at_most(record, cost, bound)]
    if not within:
        return _nothing_affordable(members[0], cost, quality, bound)
    return " ".join(_affordable(within, cost, quality, bound))


def _affordable(within: list[TrialRecord], cost: Objective, quality: Objective, bound: float) -> list[str]:
    top = best(within, (quality, cost))
    assert top is not None  # the members of a front have all objective values
    sentences = [f"{_best_of(cost, quality, bound)}: {_values(top, cost, quality, with_base=True)}."]
    near = [record for record in within if _near(record, top, quality)]
    cheapest = min(near, key=lambda record: cost.to_minimize(_value(record, cost)))
    if cheapest is not top:
        where = f"The {'cheapest' if cost.direction == 'minimize' else 'best by cost'} within {NEAR:.0%} of it".replace(
            "%", " %"
        )
        sentences.append(f"{where}: {_values(cheapest, cost, quality)}.")
    middle = balanced(within, (quality, cost))
    if middle is not None and middle is not top and middle is not cheapest:
        sentences.append(f"The best balance of both: {_values(middle, cost, quality)}.")
    return sentences


def _nothing_affordable(cheapest: TrialRecord, cost: Objective, quality: Objective, bound: float) -> str:
    limit = f"{cost.label.lower()} {_sign(cost)} {format_value(cost.metric, bound)}"
    return f"No complete trial has {limit}. The nearest: {_values(cheapest, cost, quality)}."


def _best_of(cost: Objective, quality: Objective, bound: float) -> str:
    limit = f"{cost.label.lower()} {_sign(cost)} {format_value(cost.metric, bound)}"
    return f"Best {quality.label.lower()} with {limit}"


def _values(record: TrialRecord, cost: Objective, quality: Objective, with_base: bool = False) -> str:
    base = record.measurements.get(f"base_{quality.metric}") if quality.metric in QUALITY_METRICS else None
    against = f" (base model {format_value(quality.metric, base)})" if with_base and base is not None else ""
    reached = f"{format_value(quality.metric, _value(record, quality))}{against}"
    return f"{reached} at {format_value(cost.metric, _value(record, cost))}, by {configuration_name(record)}"


def _value(record: TrialRecord, objective: Objective) -> float:
    value: Any = record.measurements[objective.metric]
    return float(value)


def _at_most(record: TrialRecord, objective: Objective, bound: float) -> bool:
    return objective.to_minimize(_value(record, objective)) <= objective.to_minimize(bound)


def _near(record: TrialRecord, top: TrialRecord, objective: Objective) -> bool:
    best_value = _value(top, objective)
    loss = objective.to_minimize(_value(record, objective)) - objective.to_minimize(best_value)
    return loss <= NEAR * abs(best_value)


def _sign(objective: Objective) -> str:
    return "at most" if objective.direction == "minimize" else "at least"
