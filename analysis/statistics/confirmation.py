"""Sums up a confirmed front: each configuration over its seeds, on the test split."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from analysis.pareto import QUALITY_METRICS, TOLERANCE
from analysis.statistics.bootstrap import Interval
from analysis.statistics.front_uncertainty import (
    MemberUncertainty,
    configuration_key,
    front_uncertainty,
    tolerant_front,
)
from study.records.objectives import Objective, objective_values
from study.records.record import TrialRecord

RIVAL_PROBABILITY = 0.05  # of being on the front, from which on a configuration may be worth confirming


@dataclass(frozen=True)
class Confirmed:
    """One configuration: the trials of its seeds, their values and intervals."""

    config: Mapping[str, Any]  # without the seed
    trial_ids: tuple[str, ...]
    on_front: bool
    probability: float  # of being on the front
    values: Mapping[str, tuple[float, ...]]  # each seed's, by objective
    spreads: Mapping[str, float | None]  # sample standard deviation over seeds; None with one
    intervals: Mapping[str, Interval]  # of the means
    seconds_per_epoch: float | None  # timed over whole epochs, where the seeds trained alone; else None


@dataclass(frozen=True)
class Confirmation:
    """A front that was confirmed, likeliest member first; `split` says on what rows quality was measured."""

    split: str
    members: tuple[Confirmed, ...]
    hypervolume: Interval | None

    def to_document(self) -> dict[str, Any]:
        """JSON-ready; what is no finite number is None."""
        document: dict[str, Any] = _finite(asdict(self))
        return document


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def near_front(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> list[TrialRecord]:
    """One trial of each configuration that is worth confirming, likeliest on the front first.

    Those are the front; what is on it in a resample of 20; and what would be on it with a quality 2 % better.
    """
    found = front_uncertainty(records, objectives).members
    by_id = {record.trial_id: record for record in records}
    means = [
        [objective.to_minimize(one.intervals[objective.metric].value) for objective in objectives] for one in found
    ]
    near = list(tolerant_front(means, _tolerances(np.asarray(means), objectives))) if means else []
    return [
        by_id[one.trial_ids[0]]
        for one, is_near in zip(found, near, strict=True)
        if one.on_front or is_near or one.probability >= RIVAL_PROBABILITY
    ]


def _tolerances(points: Any, objectives: Sequence[Objective]) -> list[float]:
    best = points.min(axis=0)
    return [
        TOLERANCE * abs(float(value)) if objective.metric in QUALITY_METRICS else 0.0
        for value, objective in zip(best, objectives, strict=True)
    ]


def confirmation(
    records: Sequence[TrialRecord], objectives: Sequence[Objective], steps_per_epoch: int | None = None
) -> Confirmation:
    """The front of the complete trials over their seeds, on the test split where all were measured there.

    `steps_per_epoch` is given where the trials trained alone, so that the time of their steps is their own.
    """
    complete = [record for record in records if record.status == "complete"]
    tested = bool(complete) and all(record.measurements["test_perplexity"] is not None for record in complete)
    judged = [on_test(record) for record in complete] if tested else complete
    judged = [record for record in judged if objective_values(record.measurements, objectives)]
    uncertainty = front_uncertainty(judged, objectives)
    by_id = {record.trial_id: record for record in judged}
    members = [
        _confirmed(one, [by_id[trial_id] for trial_id in one.trial_ids], objectives, steps_per_epoch)
        for one in uncertainty.members
    ]
    return Confirmation("test" if tested else "evaluation", tuple(members), uncertainty.hypervolume)


def on_test(record: TrialRecord) -> TrialRecord:
    """The record with the test split's quality and documents in the place of the evaluation split's."""
    measured = record.measurements
    tested = {name: measured[f"test_{name}"] for name in QUALITY_METRICS}
    return replace(record, measurements={**measured, **tested}, eval_rows=record.test_rows)


def same_configuration(one: TrialRecord, config: Mapping[str, Any]) -> bool:
    """Whether the trial is a seed of that configuration."""
    return configuration_key(one.config.to_dict()) == configuration_key(config)


def _confirmed(
    member: MemberUncertainty,
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    steps_per_epoch: int | None,
) -> Confirmed:
    names = [one.metric for one in objectives]
    values = {name: tuple(float(record.measurements[name]) for record in records) for name in names}
    spreads = {name: statistics.stdev(seeds) if len(seeds) > 1 else None for name, seeds in values.items()}
    return Confirmed(
        config=member.config,
        trial_ids=member.trial_ids,
        on_front=member.on_front,
        probability=member.probability,
        values=values,
        spreads=spreads,
        intervals=member.intervals,
        seconds_per_epoch=_timed(records, steps_per_epoch) if steps_per_epoch else None,
    )


def _timed(records: Sequence[TrialRecord], steps_per_epoch: int) -> float | None:
    """Seconds of an epoch: the time that the steps took, evaluations and waiting left out; the mean over seeds."""
    known = [(record.measurements["train_seconds"], record.measurements["train_steps"]) for record in records]
    times = [steps_per_epoch * seconds / steps for seconds, steps in known if seconds and steps]
    return statistics.fmean(times) if times else None
