"""Words values, configurations and a study's result for people."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from analysis.load import Study
from analysis.pareto import (
    QUALITY_METRICS,
    TOLERANCE,
    balanced,
    best,
    cost_index,
    front,
    quality_index,
    relative_loss,
)  # fmt: skip
from analysis.statistics.bootstrap import Interval
from study.records.infeasible import needed_bytes
from study.records.objectives import METRICS, Objective
from study.records.record import STATUSES, TrialRecord
from study.records.units import GIB, format_gib

DASH = "–"


def format_value(metric: str, value: float | None) -> str:
    """A measurement with its unit, for example `6.32 GiB`; a dash where it is missing or not finite."""
    if value is None or not math.isfinite(value):
        return DASH
    unit = METRICS[metric].unit if metric in METRICS else ""
    if unit == "bytes" or metric.endswith("_bytes"):
        return format_gib(value)
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
    return f"{value:,.0f}" if abs(value) >= 999.95 or value == int(value) else f"{value:#.4g}"


def format_duration(seconds: float) -> str:
    """Seconds as `12.3 s`, `4 min 05 s` or `2 h 07 min`, rounded to what is shown."""
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    if round(seconds) < 3600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes:02} min"


def format_share(share: float) -> str:
    """A share as a percentage with at most three significant digits: `2 %`, `1.25 %`."""
    return f"{100 * share:.3g} %"


def shorten(text: str, most: int) -> str:
    """The text, cut with an ellipsis where it has more characters than `most`."""
    return text if len(text) <= most else f"{text[:most]} …"


def configuration_name(record: TrialRecord) -> str:
    """What was sampled, in short: `nf4, rank 8, q_v, learning rate 2e-4`."""
    config, rate = record.config, format_rate(record.config.learning_rate)
    return f"{config.precision}, rank {config.rank}, {config.target_set}, learning rate {rate}"


def trial_name(record: TrialRecord) -> str:
    """The configuration, and what of its training waited in host memory: that is a part of what it costs."""
    waited = record.offload.words
    return f"{configuration_name(record)}, {waited} in host memory" if waited else configuration_name(record)


def format_rate(rate: float) -> str:
    """A learning rate as `2e-4`: three significant digits."""
    mantissa, exponent = f"{rate:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def status_counts(records: Sequence[TrialRecord]) -> dict[str, int]:
    """How many trials ended in each way, in the order of STATUSES; ways in which none ended are left out."""
    counts = Counter(str(record.status) for record in records)
    return {status: counts[status] for status in STATUSES if counts[status]}


def status_words(records: Sequence[TrialRecord]) -> str:
    """`6 complete, 1 infeasible, 1 failed`."""
    return ", ".join(f"{count} {status}" for status, count in status_counts(records).items())


def count_statuses(records: Sequence[TrialRecord]) -> str:
    """`8 trials: 6 complete, 1 infeasible, 1 failed`."""
    trials = f"{len(records)} {'trial' if len(records) == 1 else 'trials'}"
    return f"{trials}: {status_words(records)}" if records else trials


def count_seeds(records: Sequence[TrialRecord]) -> str:
    """How many seeds the complete trials' configurations were trained with: how sure differences are depends on it."""
    count = len({record.config.seed for record in records if record.status == "complete"})
    return "no seed yet" if not count else f"{count} seed{'s' * (count != 1)}"


def hypervolume_words(objectives: Sequence[Objective], volume: float, interval: Interval | None = None) -> str:
    """A hypervolume with its unit, bytes as GiB, its interval where there is one, and what it reaches up to."""
    units = ["GiB" if _is_bytes(one) else one.unit or one.label.lower() for one in objectives]
    scale = float(math.prod(GIB for one in objectives if _is_bytes(one)))
    size = f"Hypervolume {format_number(volume / scale)} ({' × '.join(units)})"
    if interval is not None:
        low, high = format_number(interval.low / scale), format_number(interval.high / scale)
        size += f", {round(100 * interval.level)} % interval {low} to {high}"
    corner = ", ".join(f"{one.label.lower()} {format_value(one.metric, one.reference)}" for one in objectives)
    text = f"{size}, up to the reference point {corner}."
    return text if volume else f"{text} No trial is better than that in every objective."


def _is_bytes(objective: Objective) -> bool:
    return METRICS[objective.metric].unit == "bytes"


def budget(study: Study, objective: Objective) -> float:
    """The worst value of a cost that the user can afford: the study's memory limit, else the objective's reference."""
    limit = study.memory_limit
    return limit if limit is not None and METRICS[objective.metric].unit == "bytes" else objective.reference


def headline(study: Study) -> str:
    """The study's result in three sentences: what to take, what is cheaper and nearly as good, what balances both.

    One sentence where there is no front.
    """
    if not study.records:
        return "No trial has ended yet."
    members = front(study.records, study.objectives)
    if not members:
        return f"No complete trial, so there is no front ({count_statuses(study.records)})."
    cost, quality = study.objectives[cost_index(study.objectives)], study.objectives[quality_index(study.objectives)]
    of_card = bounds_card(study, cost)  # once: it looks at all records
    within = [record for record in members if _is_affordable(record, study, cost, of_card)]
    verb, limit = _limit(study, cost)
    nothing = f"No complete trial {verb} {limit}"
    sentences = _affordable(within, cost, quality, limit) if within else _out_of_reach(members, cost, quality, nothing)
    return " ".join(f"{sentence}." for sentence in sentences)


def _affordable(within: list[TrialRecord], cost: Objective, quality: Objective, limit: str) -> tuple[str, str, str]:
    top = best(within, (quality, cost))
    assert top is not None  # the members of a front have all objective values
    near = [record for record in within if _is_near(record, top, quality)]
    cheapest = min(near, key=lambda record: [each.to_minimize(_value(record, each)) for each in (cost, quality)])
    share = format_share(TOLERANCE)
    if cheapest is top:
        cheaper = f"Nothing {_cheaper(cost)} comes within {share} of it"
    else:
        cheaper = f"{_cheapest(cost)} within {share} of it: {_values(cheapest, cost, quality)}"
    top_words = f"Best {quality.label.lower()} with {limit}: {_values(top, cost, quality, with_base=True)}"
    return top_words, cheaper, _balance(within, top, cheapest, cost, quality)


def _balance(
    within: list[TrialRecord], top: TrialRecord, cheapest: TrialRecord, cost: Objective, quality: Objective
) -> str:
    middle = balanced(within, (quality, cost))
    if len(within) == 1:
        return "It is the only trial of the front within that limit"
    if middle is None or middle is top:
        return "It is also the best balance of both"
    same = "the same" if middle is cheapest else _values(middle, cost, quality)
    return f"The best balance of both: {same}"


def _out_of_reach(
    members: list[TrialRecord], cost: Objective, quality: Objective, nothing: str
) -> tuple[str, str, str]:
    """`members` are sorted by cost, cheapest first."""
    top = best(members, (quality, cost))
    assert top is not None  # as above
    same = "the same" if top is members[0] else _values(top, cost, quality, with_base=True)
    return (
        nothing,
        f"The nearest: {_values(members[0], cost, quality)}",
        f"Best {quality.label.lower()} at any cost: {same}",
    )


def bounds_card(study: Study, objective: Objective) -> bool:
    """Whether a budget of this objective is a card's memory, or what a process may hold of it."""
    on_card = any(record.measurements.get("peak_reserved_bytes") is not None for record in study.records)
    return on_card and _is_bytes(objective)


def _is_affordable(record: TrialRecord, study: Study, cost: Objective, of_card: bool) -> bool:
    """Whether the study's budget allows the trial: what a card must have for it, not the allocator's peak alone."""
    bound = budget(study, cost)
    if not of_card:
        return _at_most(record, cost, bound)
    needed = needed_bytes(record.measurements, of_process=study.memory_limit is not None)
    return needed is not None and needed <= bound


def _limit(study: Study, cost: Objective) -> tuple[str, str]:
    """The verb of what stays within the budget, and the budget in words."""
    bound = format_value(cost.metric, budget(study, cost))
    if bounds_card(study, cost):
        return "fits", f"{'a card' if study.memory_limit is None else 'a memory limit'} of {bound}"
    return "has", f"{cost.label.lower()} {'at most' if cost.direction == 'minimize' else 'at least'} {bound}"


def _cheaper(cost: Objective) -> str:
    return f"with {'less' if cost.direction == 'minimize' else 'more'} {cost.label.lower()}"


def _cheapest(cost: Objective) -> str:
    return f"{'Least' if cost.direction == 'minimize' else 'Most'} {cost.label.lower()}"


def _values(record: TrialRecord, cost: Objective, quality: Objective, with_base: bool = False) -> str:
    base = record.measurements.get(f"base_{quality.metric}") if quality.metric in QUALITY_METRICS else None
    against = f" (base model {format_value(quality.metric, base)})" if with_base and base is not None else ""
    reached = f"{format_value(quality.metric, _value(record, quality))}{against}"
    return f"{reached} at {format_value(cost.metric, _value(record, cost))}, by {trial_name(record)}"


def _value(record: TrialRecord, objective: Objective) -> float:
    value: Any = record.measurements[objective.metric]
    return float(value)


def _at_most(record: TrialRecord, objective: Objective, bound: float) -> bool:
    return objective.to_minimize(_value(record, objective)) <= objective.to_minimize(bound)


def _is_near(record: TrialRecord, top: TrialRecord, objective: Objective) -> bool:
    value, best_value = (objective.to_minimize(_value(each, objective)) for each in (record, top))
    return relative_loss(value, best_value) <= TOLERANCE
