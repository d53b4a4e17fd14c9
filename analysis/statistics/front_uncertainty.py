"""How sure the front is: how often each trial is on it when documents and seeds are drawn anew.

Functions over arrays minimize; `front_uncertainty` turns the directions once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.pareto import hypervolume, non_dominated
from analysis.statistics.bootstrap import LEVEL, Interval, draws, percentile_interval, perplexities
from study.records.objectives import Objective, objective_values
from study.records.record import TrialRecord

RESAMPLES = 1000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MemberUncertainty:
    """One configuration: its trials (its seeds), and how often it is on the front."""

    trial_ids: tuple[str, ...]
    config: Mapping[str, Any]  # without the seed
    on_front: bool  # as measured, seeds averaged
    probability: float  # of being on the front
    intervals: Mapping[str, Interval]  # by objective, in its own direction


@dataclass(frozen=True)
class FrontUncertainty:
    """The front's members and rivals, likeliest first, and the hypervolume with its interval."""

    members: tuple[MemberUncertainty, ...]
    hypervolume: Interval | None  # None without complete trials


def tolerant_front(points: ArrayLike, tolerances: ArrayLike) -> NDArray[np.bool_]:
    """Which rows of the `n x m`-dim points are on the front, or miss it by at most the tolerances, as an `n`-dim mask.

    A row is out only if another would dominate it even after it got better by `tolerances` (`m`-dim, each at least 0,
    in the columns' units): additive epsilon-dominance (Laumanns et al. 2002, doi 10.1162/106365602760234108).
    Tolerances of 0 give `non_dominated`. Rows with NaN or infinity are out and keep nobody out. Raises ValueError for
    tolerances that are negative or do not fit.
    """
    rows = np.atleast_2d(np.asarray(points, dtype=float))
    slack = np.asarray(tolerances, dtype=float)
    if rows.size == 0:
        return np.zeros(0, dtype=np.bool_)
    if slack.shape != (rows.shape[1],) or not (slack >= 0).all() or not np.isfinite(slack).all():
        raise ValueError(f"tolerances must be {rows.shape[1]} numbers of at least 0; they are {tolerances!r}")
    finite = np.isfinite(rows).all(axis=1)
    better = np.where(finite[:, None], rows - slack, np.inf)
    others = rows[finite]
    no_worse = (others[None, :, :] <= better[:, None, :]).all(axis=2)
    once_less = (others[None, :, :] < better[:, None, :]).any(axis=2)
    return np.asarray(finite & ~(no_worse & once_less).any(axis=1), dtype=np.bool_)


def front_probabilities(samples: ArrayLike) -> Floats:
    """How often each of n rows is on the front of `b x n x m`-dim resamples (minimize), as `n`-dim shares.

    Rows that are equal in a resample are on the front together. Raises ValueError without resamples.
    """
    drawn = np.asarray(samples, dtype=float)
    if drawn.ndim != 3 or not len(drawn):
        raise ValueError(f"samples must be resamples x rows x objectives; they are {drawn.shape}")
    shares = np.zeros(drawn.shape[1])
    rivals = ~_always_dominated(drawn)
    if rivals.any():
        shares[rivals] = np.mean([non_dominated(points) for points in drawn[:, rivals]], axis=0)
    return shares


def _always_dominated(drawn: Floats) -> NDArray[np.bool_]:
    """Which rows surely have another that dominates them in every resample, `n`-dim: they change no front.

    That is one whose worst values dominate the row's best. It is sought among the rows whose worst values are on a
    front of their own, since those dominate all that any do.
    """
    best, finite = np.fmin.reduce(drawn, axis=0), np.isfinite(drawn).all(axis=0)
    worst = np.where(finite, np.maximum.reduce(drawn, axis=0), np.inf)  # what is not finite dominates nothing
    columns, dominated = np.ascontiguousarray(best.T), np.zeros(len(best), dtype=np.bool_)
    for rival in worst[non_dominated(worst)][:, :, None]:
        dominated |= (rival <= columns).all(axis=0) & (rival < columns).any(axis=0)
    return dominated


def hypervolume_interval(samples: ArrayLike, points: ArrayLike, reference: ArrayLike, level: float = LEVEL) -> Interval:
    """The hypervolume of `n x m`-dim points (minimize) with the middle `level` of that of their resamples."""
    volumes = [hypervolume(drawn, reference) for drawn in np.asarray(samples, dtype=float)]
    return percentile_interval(volumes, hypervolume(points, reference), level)


def front_uncertainty(
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> FrontUncertainty:
    """How likely each configuration is on the front of the complete trials, and an interval of the hypervolume.

    In each resample, evaluation documents are drawn anew, the same for all trials; and where a configuration was
    trained with several seeds, its seeds are drawn anew too. A configuration's values are the means over its seeds;
    perplexity varies with documents where its record keeps their nats, everything else varies with seeds only. A
    configuration of one seed thus counts as sure of its seed, which it is not: confirm the front with more.

    Raises ValueError where the trials were evaluated on different documents.
    """
    groups = _configurations(records, objectives)
    if not groups:
        return FrontUncertainty((), None)
    samples = _samples(groups, objectives, resamples, seed)
    points = np.stack([_values(group, objectives).mean(axis=0) for group in groups])
    corner = [one.to_minimize(one.reference) for one in objectives]
    members = _likeliest(groups, objectives, samples, len(groups), level)
    return FrontUncertainty(members, hypervolume_interval(samples, points, corner, level))


def likeliest_members(
    records: Sequence[TrialRecord], objectives: Sequence[Objective], most: int
) -> tuple[MemberUncertainty, ...]:
    """The first `most` members of `front_uncertainty`, in less time than all of them and the hypervolume take.

    Raises ValueError where the trials were evaluated on different documents.
    """
    groups = _configurations(records, objectives)
    if not groups:
        return ()
    return _likeliest(groups, objectives, _samples(groups, objectives, RESAMPLES, seed=0), most, LEVEL)


def _likeliest(
    groups: Sequence[Sequence[TrialRecord]], objectives: Sequence[Objective], samples: Floats, most: int, level: float
) -> tuple[MemberUncertainty, ...]:
    points = np.stack([_values(group, objectives).mean(axis=0) for group in groups])
    on_front, probabilities = non_dominated(points), front_probabilities(samples)
    names = [tuple(record.trial_id for record in group) for group in groups]
    order = sorted(range(len(groups)), key=lambda index: (-probabilities[index], names[index]))
    return tuple(
        _member(groups[index], objectives, bool(on_front[index]), float(probabilities[index]), samples[:, index], level)
        for index in order[:most]
    )


def configuration_key(config: Mapping[str, Any]) -> str:
    """What the seeds of one configuration share, as text that sorts."""
    return repr(sorted((name, value) for name, value in config.items() if name != "seed"))


def _configurations(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> list[list[TrialRecord]]:
    """The complete trials with all objectives finite, seeds of one configuration together."""
    groups: dict[str, list[TrialRecord]] = defaultdict(list)
    for record in records:
        if record.status == "complete" and objective_values(record.measurements, objectives):
            groups[configuration_key(record.config.to_dict())].append(record)
    return list(groups.values())


def _samples(
    groups: Sequence[Sequence[TrialRecord]], objectives: Sequence[Objective], resamples: int, seed: int
) -> Floats:
    """The objectives (minimized) of each configuration in each resample, `b x n x m`-dim."""
    drawn = _document_draws([record for group in groups for record in group], resamples, seed)
    samples = np.empty((resamples, len(groups), len(objectives)))
    for index, group in enumerate(groups):
        samples[:, index] = _group_samples(group, objectives, drawn, resamples, seed + 1 + index)
    return samples


def _document_draws(records: Sequence[TrialRecord], resamples: int, seed: int) -> NDArray[np.int32] | None:
    """How often each document is drawn in each resample; None where no trial keeps its documents."""
    kept = [record.eval_rows["tokens"] for record in records if record.eval_rows]
    if not kept:
        return None
    if any(list(tokens) != list(kept[0]) for tokens in kept):
        rule = "trials must have been evaluated on the same documents for their front to be drawn anew"
        raise ValueError(f"{rule}; their target tokens differ. Give trials that share `comparable.quality`.")
    return draws(len(kept[0]), resamples, seed)


def _group_samples(
    group: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    drawn: NDArray[np.int32] | None,
    resamples: int,
    seed: int,
) -> Floats:
    """One configuration: the mean over its drawn seeds, `b x m`-dim."""
    values = np.repeat(_values(group, objectives)[None], resamples, axis=0)  # b x seeds x m
    for column, objective in enumerate(objectives):
        if objective.metric == "perplexity" and drawn is not None:
            for place, record in enumerate(group):
                if record.eval_rows:
                    resampled = perplexities(record.eval_rows["nats"], record.eval_rows["tokens"], drawn)[:, 0]
                    values[:, place, column] = objective.to_minimize(1.0) * resampled
    if len(group) == 1:
        return np.asarray(values[:, 0], dtype=np.float64)
    weights = draws(len(group), resamples, seed) / len(group)
    return np.asarray((values * weights[:, :, None]).sum(axis=1), dtype=np.float64)


def _values(group: Sequence[TrialRecord], objectives: Sequence[Objective]) -> Floats:
    """Measured objectives, minimized, `seeds x m`-dim."""
    rows = [[one.to_minimize(float(record.measurements[one.metric])) for one in objectives] for record in group]
    return np.asarray(rows, dtype=float)


def _member(
    group: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    on_front: bool,
    probability: float,
    samples: Floats,
    level: float,
) -> MemberUncertainty:
    means = _values(group, objectives).mean(axis=0)
    intervals = {}
    for column, one in enumerate(objectives):
        sign = one.to_minimize(1.0)
        intervals[one.metric] = percentile_interval(sign * samples[:, column], sign * float(means[column]), level)
    config = {name: value for name, value in group[0].config.to_dict().items() if name != "seed"}
    return MemberUncertainty(tuple(record.trial_id for record in group), config, on_front, probability, intervals)
