"""Compares studies: what of them may be compared, and what equal configurations came to in each."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from analysis.load import Study
from analysis.pareto import QUALITY_METRICS, front
from analysis.statistics.bootstrap import Interval, mean_interval
from study.records.objectives import Objective
from study.records.record import TrialRecord

Kind = Literal["quality", "cost"]
KINDS: tuple[Kind, ...] = ("quality", "cost")
QUALITY = (*QUALITY_METRICS, "test_perplexity", "test_accuracy")

_Fact = Callable[[Study, TrialRecord], Any]
_QUALITY_FACTS: tuple[tuple[str, _Fact], ...] = (
    ("base model", lambda study, record: (record.base_model.get("path"), record.base_model.get("sha256"))),
    ("data (tokens, split and length)", lambda study, record: record.dataset.get("fingerprint")),
    ("max_tokens", lambda study, record: _setting(study, "dataset", "max_tokens")),
)
_COST_FACTS: tuple[tuple[str, _Fact], ...] = (
    *_QUALITY_FACTS,
    ("device", lambda study, record: record.device.get("name")),
    ("micro_batch_size", lambda study, record: _setting(study, "training", "micro_batch_size")),
    ("gradient_accumulation_steps", lambda study, record: _setting(study, "training", "gradient_accumulation_steps")),
    ("gradient_checkpointing", lambda study, record: _setting(study, "training", "gradient_checkpointing")),
    ("optimizer", lambda study, record: _setting(study, "training", "optimizer") or "adamw"),
)


@dataclass(frozen=True)
class Change:
    """What a metric is in the second study against the first, over the configurations that both have.

    `change` is the mean ratio less 1 (0.1: ten percent more), or for accuracies the mean difference.
    """

    metric: str
    pairs: int
    change: Interval


def incomparable(first: Study, second: Study, kind: Kind) -> tuple[str, ...]:
    """The reasons why two studies' quality, or cost, may not be compared; none where it may.

    It may where the complete trials of both carry one hash of everything that it depends on. In cost trials for which
    the same waited in host memory have one, and equal configurations are to have waited alike. What differs is named as
    far as the records and the study files tell.
    """
    one, other = (_hashes(study, kind) for study in (first, second))
    for study, found in ((first, one), (second, other)):
        if not found:
            return (f"{study.name} has no complete trial",)
        if any(None in each for each in found.values()):
            return (f"{study.name} does not say what its {kind} depends on",)
        if any(len(each) > 1 for each in found.values()):
            return (f"the complete trials of {study.name} do not compare among themselves",)
    shared = one.keys() & other.keys()
    if any(one[offload] != other[offload] for offload in shared):
        return _differing(first, second, kind) or (f"the engine or the masking has changed since {first.name}",)
    return _waited_otherwise(first, second) if kind == "cost" else ()


def _hashes(study: Study, kind: Kind) -> dict[Any, set[str | None]]:
    """The hashes of the complete trials; of their cost, apart by what waited in host memory."""
    found: dict[Any, set[str | None]] = {}
    for record in complete_trials(study):
        found.setdefault(record.offload if kind == "cost" else None, set()).add(record.comparable.get(kind))
    return found


def _waited_otherwise(first: Study, second: Study) -> tuple[str, ...]:
    """Why costs do not compare where more waited in host memory in one study: of a pair, or of all trials."""
    both = pairs(first, second) or [(complete_trials(first)[0], complete_trials(second)[0])]
    apart = [(one.offload.words, other.offload.words) for one, other in both if one.offload != other.offload]
    if not apart:
        return ()
    one, other = apart[0]
    return (f"what waited in host memory differs: {one or 'nothing'} and {other or 'nothing'}",)


def pairs(first: Study, second: Study) -> list[tuple[TrialRecord, TrialRecord]]:
    """The complete trials of the same configuration and seed, in the first study's order."""
    there = {_key(record): record for record in complete_trials(second)}
    return [(record, there[_key(record)]) for record in complete_trials(first) if _key(record) in there]


def changes(both: Sequence[tuple[TrialRecord, TrialRecord]], metrics: Sequence[str]) -> list[Change]:
    """How much each metric differs over the pairs that have it finite and above 0, with an interval over the pairs.

    Of one pair the interval's bounds are NaN: it says nothing of another.
    """
    found = []
    for metric in metrics:
        values = [(_number(one, metric), _number(other, metric)) for one, other in both]
        known = [(one, other) for one, other in values if one and other]
        ratio = not metric.endswith("accuracy")
        interval = mean_interval([math.log(b / a) if ratio else b - a for a, b in known])
        if interval is not None:
            interval = interval if len(known) > 1 else replace(interval, low=math.nan, high=math.nan)
            found.append(Change(metric, len(known), _ratios(interval) if ratio else interval))
    return found


def common_objectives(studies: Sequence[Study]) -> tuple[Objective, ...]:
    """The first study's objectives that all others have too, in the same direction."""
    others = [{(one.metric, one.direction) for one in study.objectives} for study in studies[1:]]
    return tuple(one for one in studies[0].objectives if all((one.metric, one.direction) in each for each in others))


def joint_front(studies: Sequence[Study], objectives: Sequence[Objective]) -> list[tuple[Study, TrialRecord]]:
    """The front of all studies' trials together, cheapest first, each with the study that it is of."""
    owners = {id(record): study for study in studies for record in study.records}
    everything = [record for study in studies for record in study.records]
    return [(owners[id(record)], record) for record in front(everything, objectives)]


def differing_settings(first: Study, second: Study) -> list[tuple[str, Any, Any]]:
    """The keys of the study files that differ, as `a.b`, with both values; name and storage left out."""
    one, other = _flat(first.settings), _flat(second.settings)
    keys = sorted({*one, *other} - {"name", "storage"})
    return [(key, one.get(key), other.get(key)) for key in keys if one.get(key) != other.get(key)]


def complete_trials(study: Study) -> list[TrialRecord]:
    """The study's complete trials."""
    return [record for record in study.records if record.status == "complete"]


def _differing(first: Study, second: Study, kind: Kind) -> tuple[str, ...]:
    facts = _QUALITY_FACTS if kind == "quality" else _COST_FACTS
    one, other = complete_trials(first)[0], complete_trials(second)[0]
    both = [(name, fact(first, one), fact(second, other)) for name, fact in facts]
    return tuple(f"{name} differs: {_short(a)} and {_short(b)}" for name, a, b in both if a != b)


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(_short(part) for part in value if part is not None)
    text = str(value)
    return text if len(text) <= 48 or "/" in text else f"{text[:12]}…"


def _setting(study: Study, section: str, key: str) -> Any:
    values = study.settings.get(section)
    return values.get(key) if isinstance(values, Mapping) else None


def _key(record: TrialRecord) -> str:
    config = record.config.to_dict()
    return json.dumps({**config, "target_modules": sorted(config["target_modules"])}, sort_keys=True)


def _number(record: TrialRecord, metric: str) -> float | None:
    value = record.measurements.get(metric)
    return float(value) if value is not None and math.isfinite(value) else None


def _ratios(logs: Interval) -> Interval:
    return Interval(math.expm1(logs.low), math.expm1(logs.value), math.expm1(logs.high), logs.level)


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, Mapping) or not values:
        return {prefix: values}
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
