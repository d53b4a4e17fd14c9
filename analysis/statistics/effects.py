"""Effects of rank, target modules, layers and precision, each at equal everything else, with an interval.

An effect is the mean over pairs of trials that differ in one choice only. Quality and cost are compared as ratios (the
mean of log ratios, so that +10 % and back is nothing), accuracy as a difference.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.bootstrap import (
    Interval,
    chunks,
    draws,
    mean_interval,
    percentile_interval,
    perplexities,
)
from study.records.record import TrialRecord

RESAMPLES = 2000
SIXTEEN_BIT = ("fp16", "bf16")
DIFFERENCES = ("accuracy", "test_accuracy")  # compared as differences; all other metrics as ratios
COSTS = ("peak_memory_bytes", "seconds_per_epoch")
METRICS = ("perplexity", "test_perplexity", "accuracy", *COSTS)

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
    """The paper's questions, each for quality, memory and time: rank, target modules, layers, precision.

    Rank 64 is compared with 8, or the highest with the lowest there are where one of those was not tried; all layers
    with each part of them. Questions
    that the records say nothing of are left out; one without pairs stays, with `pairs` 0.
    """
    asked = [("rank", *_rank_levels(records)), ("target_modules", "q_v", "all_linear")]
    parts = sorted({record.config.layer_range for record in records if record.config.layers is not None})
    asked += [("layers", "all", part) for part in parts]
    asked += [("precision", bits, "nf4") for bits in SIXTEEN_BIT]
    there = [(factor, before, after) for factor, before, after in asked if _tried(records, factor, before, after)]
    every = [one for question in there for one in effects(records, *question, METRICS, resamples, seed)]
    measured = {metric for metric in METRICS if any(_measured(record, metric) for record in records)}
    return [one for one in every if one.metric in measured]


def effects(
    records: Sequence[TrialRecord],
    factor: str,
    before: Any,
    after: Any,
    metrics: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Effect]:
    """How each of the metrics changes from `before` to `after`, at equal everything else.

    Only complete trials with the metric finite (above 0 for ratios) count, each in one pair at most. Costs are not
    compared where more of one training waited in host memory than of the other: that would be its effect too.
    """
    known: dict[tuple[int, ...], list[Pair]] = {}  # pairing takes long, and most metrics are of the same trials
    found = []
    for metric in metrics:
        usable = [record for record in records if _measured(record, metric)]
        key = tuple(map(id, usable))
        if key not in known:
            known[key] = matched_pairs(usable, factor, before, after)
        pairs = [pair for pair in known[key] if metric not in COSTS or pair[0].offload == pair[1].offload]
        change = _change(pairs, metric, resamples, seed) if pairs else None
        found.append(Effect(factor, before, after, metric, len(pairs), change))
    return found


def matched_pairs(records: Sequence[TrialRecord], factor: str, before: Any, after: Any) -> list[Pair]:
    """The complete trials at `before` with those at `after` that are equal in all else, the seed included.

    Trials whose quality may not be compared never pair. Where the factor is the rank, equal means that either
    `lora_alpha` or alpha / rank is equal, since both ways of holding the update's size are usual; none pairs twice.
    """
    complete = [record for record in records if record.status == "complete"]
    left = [record for record in complete if level_of(record, factor) == before]
    waiting = [record for record in complete if level_of(record, factor) == after]
    pairs: list[Pair] = []
    paired: set[int] = set()  # records by identity: a list to take them out of would be gone through for each
    for view in ("lora_alpha", "scaling") if factor == "rank" else ("lora_alpha",):
        index: dict[Hashable, deque[TrialRecord]] = defaultdict(deque)
        for record in (one for one in waiting if id(one) not in paired):
            index[_rest(record, factor, view)].append(record)
        for record in (one for one in left if id(one) not in paired):
            partners = index.get(_rest(record, factor, view))
            if partners:
                pairs.append((record, partners.popleft()))
                paired.update(map(id, pairs[-1]))
    return pairs


def level_of(record: TrialRecord, factor: str) -> Any:
    """A trial's level of a factor; target modules by their set's name, layers as a text (`all`, `16-31`)."""
    names = {"target_modules": "module_set", "layers": "layer_range"}
    return getattr(record.config, names.get(factor, factor))


def _rest(record: TrialRecord, factor: str, view: str) -> Hashable:
    """Everything but the factor, as a key."""
    config = record.config
    values = {
        "precision": config.precision,
        "rank": config.rank,
        "lora_alpha": config.lora_alpha if view == "lora_alpha" else round(config.scaling, 12),
        "lora_dropout": config.lora_dropout,
        # Sorted and not by name, in which long patterns are cut.
        "target_modules": tuple(sorted(config.target_modules)),
        "layers": config.layers,
        "learning_rate": config.learning_rate,
        "seed": config.seed,
    }
    values.pop(factor)
    return (*values.values(), record.comparable.get("quality"))


def _change(pairs: Sequence[Pair], metric: str, resamples: int, seed: int) -> Interval:
    """The mean change with its interval, from logs back to ratios."""
    ratio = metric not in DIFFERENCES
    differences = np.asarray([_difference(pair, metric, ratio) for pair in pairs])
    by_document = _document_samples(pairs, resamples, seed) if metric == "perplexity" else None
    if by_document is not None:
        interval = percentile_interval(by_document, float(differences.mean()))
    elif len(pairs) == 1:
        interval = Interval(math.nan, float(differences[0]), math.nan)
    else:
        found = mean_interval(differences, resamples, seed)
        assert found is not None  # there are pairs
        interval = found
    if not ratio:
        return interval
    return Interval(math.expm1(interval.low), math.expm1(interval.value), math.expm1(interval.high))


def _difference(pair: Pair, metric: str, ratio: bool) -> float:
    before, after = (float(record.measurements[metric]) for record in pair)
    return math.log(after / before) if ratio else after - before


def _document_samples(pairs: Sequence[Pair], resamples: int, seed: int) -> NDArray[np.float64] | None:
    """Mean log ratios of perplexity, documents and pairs drawn anew, `b`-dim; None where documents differ."""
    rows = [record.eval_rows for pair in pairs for record in pair]
    if not all(rows):
        return None
    kept: list[Mapping[str, Any]] = [row for row in rows if row]
    tokens = list(kept[0]["tokens"])
    if any(list(row["tokens"]) != tokens for row in kept):
        return None
    nats = np.asarray([row["nats"] for row in kept], dtype=float)
    documents, weights = draws(len(tokens), resamples, seed), draws(len(pairs), resamples, seed + 1)
    means = [_weighted(nats, tokens, documents[rows], weights[rows]) for rows in chunks(resamples, len(kept))]
    return np.concatenate(means)


def _weighted(
    nats: NDArray[np.float64], tokens: Sequence[int], documents: NDArray[np.int32], weights: NDArray[np.int32]
) -> NDArray[np.float64]:
    """The mean over pairs, each as often as drawn; the records of a pair stand one after the other in `nats`."""
    logs = np.log(perplexities(nats, tokens, documents))
    differences = logs[:, 1::2] - logs[:, 0::2]
    return np.asarray((differences * weights).sum(axis=1) / weights.shape[1], dtype=np.float64)


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
