"""Effects of rank, target modules and precision, each at equal everything else, with an interval.

An effect is the mean over pairs of trials that differ in one choice only. Quality and cost are compared as ratios (the
mean of log ratios, so that +10 % and back is nothing), accuracy as a difference.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.bootstrap import LEVEL, Interval, draws, mean_interval, percentile_interval, perplexities
from study.records.record import TrialRecord

RESAMPLES = 2000
SIXTEEN_BIT = ("fp16", "bf16")
DIFFERENCES = ("accuracy", "test_accuracy")  # compared as differences; all other metrics as ratios
METRICS = ("perplexity", "test_perplexity", "accuracy", "peak_memory_bytes", "seconds_per_epoch")

Pair = tuple[TrialRecord, TrialRecord]


@dataclass(frozen=True)
class Effect:
    """What going from one level of a factor to another did to a metric, over pairs equal in everything else.

    `change` is a ratio less 1 (0.1: ten percent more), for accuracies a difference. It is None without pairs. Its
    bounds come from drawing pairs anew and, for perplexity, documents too; they are NaN where there was nothing to draw
    (one pair, no documents).
    """

    factor: str
    before: Any
    after: Any
    metric: str
    pairs: int
    change: Interval | None

    @property
    def sure(self) -> bool:
        """Whether the interval leaves no effect out; False where there is none."""
        return self.change is not None and (self.change.low > 0 or self.change.high < 0)


def standard_effects(records: Sequence[TrialRecord], resamples: int = RESAMPLES, seed: int = 0) -> list[Effect]:
    """The paper's questions, each for quality, memory and time: rank, target modules, precision.

    Rank 64 is compared with 8, or the highest with the lowest there are where one of those was not tried. Questions
    that the records say nothing of are left out; one without pairs stays, with `pairs` 0.
    """
    asked = [("rank", *_rank_levels(records)), ("target_modules", "q_v", "all_linear")]
    asked += [("precision", bits, "nf4") for bits in SIXTEEN_BIT]
    there = [(factor, before, after) for factor, before, after in asked if _tried(records, factor, before, after)]
    every = [effect(records, *question, metric, resamples, seed) for question in there for metric in METRICS]
    measured = {metric for metric in METRICS if any(_measured(record, metric) for record in records)}
    return [one for one in every if one.metric in measured]


def effect(
    records: Sequence[TrialRecord],
    factor: str,
    before: Any,
    after: Any,
    metric: str,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Effect:
    """How a metric changes from `before` to `after`, at equal everything else.

    Only complete trials with the metric finite (above 0 for ratios) count, each in one pair at most.
    """
    usable = [record for record in records if _measured(record, metric)]
    pairs = matched_pairs(usable, factor, before, after)
    change = _change(pairs, metric, resamples, seed, level) if pairs else None
    return Effect(factor, before, after, metric, len(pairs), change)


def matched_pairs(records: Sequence[TrialRecord], factor: str, before: Any, after: Any) -> list[Pair]:
    """The complete trials at `before` with those at `after` that are equal in all else, the seed included.

    Trials whose quality may not be compared never pair. Where the factor is the rank, equal means that either
    `lora_alpha` or alpha / rank is equal, since both ways of holding the update's size are usual; none pairs twice.
    """
    complete = [record for record in records if record.status == "complete"]
    left = [record for record in complete if level_of(record, factor) == before]
    waiting = [record for record in complete if level_of(record, factor) == after]
    pairs: list[Pair] = []
    for view in ("lora_alpha", "scaling") if factor == "rank" else ("lora_alpha",):
        index: dict[Hashable, list[TrialRecord]] = defaultdict(list)
        for record in waiting:
            index[_rest(record, factor, view)].append(record)
        for record in list(left):
            partners = index[_rest(record, factor, view)]
            if partners:
                pairs.append((record, partners.pop(0)))
                left = [one for one in left if one is not record]
                waiting = [one for one in waiting if one is not pairs[-1][1]]
    return pairs


def level_of(record: TrialRecord, factor: str) -> Any:
    """A trial's level of a factor; target modules by their set's name."""
    return record.config.target_set if factor == "target_modules" else getattr(record.config, factor)


def _rest(record: TrialRecord, factor: str, view: str) -> Hashable:
    """Everything but the factor, as a key."""
    config = record.config
    values = {**config.to_dict(), "target_modules": config.target_set}
    if view == "scaling":
        values["lora_alpha"] = round(config.scaling, 12)
    values.pop(factor)
    return (tuple(sorted(values.items())), record.comparable.get("quality"))


def _change(pairs: Sequence[Pair], metric: str, resamples: int, seed: int, level: float) -> Interval:
    """The mean change with its interval, from logs back to ratios."""
    ratio = metric not in DIFFERENCES
    differences = np.asarray([_difference(pair, metric, ratio) for pair in pairs])
    by_document = _document_samples(pairs, resamples, seed) if metric == "perplexity" else None
    if by_document is not None:
        weights = draws(len(pairs), resamples, seed + 1) / len(pairs)
        samples = (by_document * weights).sum(axis=1)
        interval = percentile_interval(samples, float(differences.mean()), level)
    elif len(pairs) == 1:
        interval = Interval(math.nan, float(differences[0]), math.nan, level)
    else:
        found = mean_interval(differences, resamples, seed, level)
        assert found is not None  # there are pairs
        interval = found
    if not ratio:
        return interval
    return Interval(math.expm1(interval.low), math.expm1(interval.value), math.expm1(interval.high), level)


def _difference(pair: Pair, metric: str, ratio: bool) -> float:
    before, after = (float(record.measurements[metric]) for record in pair)
    return math.log(after / before) if ratio else after - before


def _document_samples(pairs: Sequence[Pair], resamples: int, seed: int) -> NDArray[np.float64] | None:
    """Log ratios of perplexity with documents drawn anew, `b x pairs`-dim; None where they were not kept or differ."""
    rows = [record.eval_rows for pair in pairs for record in pair]
    if not all(rows):
        return None
    kept: list[Mapping[str, Any]] = [row for row in rows if row]
    tokens = list(kept[0]["tokens"])
    if any(list(row["tokens"]) != tokens for row in kept):
        return None
    nats = np.asarray([row["nats"] for row in kept], dtype=float)
    logs = np.log(perplexities(nats, tokens, draws(len(tokens), resamples, seed)))
    return np.asarray(logs[:, 1::2] - logs[:, 0::2], dtype=np.float64)


def _measured(record: TrialRecord, metric: str) -> bool:
    value = record.measurements.get(metric)
    if record.status != "complete" or value is None or not math.isfinite(value):
        return False
    return metric in DIFFERENCES or value > 0


def _rank_levels(records: Sequence[TrialRecord]) -> tuple[int, int]:
    ranks = sorted({record.config.rank for record in records})
    return (8, 64) if {8, 64} <= set(ranks) or not ranks else (ranks[0], ranks[-1])


def _tried(records: Sequence[TrialRecord], factor: str, before: Any, after: Any) -> bool:
    levels = {level_of(record, factor) for record in records}
    return before != after and {before, after} <= levels
