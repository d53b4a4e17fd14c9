"""A Bayesian search where cost is known before a trial: only quality needs trials. (no torch, no ray)

A Gaussian process learns quality. Since memory is known, what a candidate adds to the hypervolume depends on its
quality alone: it is the sum, over the steps of the front's staircase, of how far it comes below each. The expectation
of that has a closed form, step by step (expected improvement: Jones et al. 1998, doi.org/10.1023/A:1008306431147).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from search_spaces.footprint import Footprint
from search_spaces.parameters import SearchSpace
from search_spaces.trial_config import TrialConfig
from study.records.objectives import Objective
from study.search.candidates import candidates, features
from study.search.database import config_of
from study.search.gaussian_process import GaussianProcess, evenly_spread, normal_cdf

Floats = NDArray[np.float64]
MemoryOf = Callable[[TrialConfig], float]
MOST_STARTUP_TRIALS = 8
MOST_TOLD = 512  # trials: a proposal's time grows with their number's cube


@dataclass(frozen=True)
class KnownCost:
    """Two objectives, both minimized: a quality that trials show, and a memory that is known of every configuration.

    `quality` and `cost` are their places among the objectives' values; `logarithmic` where the quality is above 0 and
    errors are relative. `memory_of` predicts bytes; what was measured counts before it. `limit` is the most memory that
    there is.
    """

    quality: int
    cost: int
    reference: tuple[float, float]  # of quality and memory: what is worse adds nothing
    logarithmic: bool
    memory_of: MemoryOf
    limit: float = math.inf


def known_cost_of(objectives: Sequence[Objective], memory_of: MemoryOf, memory_limit: float | None) -> KnownCost | None:
    """What of a study's objectives is known before a trial; None where they are not perplexity and peak memory."""
    sought = {one.metric: place for place, one in enumerate(objectives) if one.direction == "minimize"}
    if set(sought) != {"perplexity", "peak_memory_bytes"} or len(objectives) != 2:
        return None
    quality, cost = sought["perplexity"], sought["peak_memory_bytes"]
    reference = (objectives[quality].reference, objectives[cost].reference)
    return KnownCost(quality, cost, reference, True, memory_of, math.inf if memory_limit is None else memory_limit)


@dataclass(frozen=True)
class Observed:
    """What the search knows: configurations with their quality (minimized), and those that still run."""

    configs: tuple[TrialConfig, ...]
    quality: tuple[float, ...]
    complete: tuple[bool, ...]
    running: tuple[TrialConfig, ...]


def observed(history: Sequence[FrozenTrial], known: KnownCost) -> Observed:
    """Quality of the trials so far.

    Diverged trials have the worst that a complete one had; stopped ones what they had reached, but no worse than that:
    they would have come further, and yet were dominated.
    """
    done = [trial for trial in history if trial.state == TrialState.COMPLETE]
    worst = max((trial.values[known.quality] for trial in done), default=math.nan)
    found: list[tuple[TrialConfig, float, bool]] = []
    for trial in history:
        quality = _quality(trial, known.quality, worst)
        if quality is not None and math.isfinite(quality):
            found.append((config_of(trial), quality, trial.state == TrialState.COMPLETE))
    running = tuple(config_of(trial) for trial in history if trial.state == TrialState.RUNNING)
    configs, values, complete = zip(*found, strict=True) if found else ((), (), ())
    return Observed(configs, values, complete, running)


def _quality(trial: FrozenTrial, place: int, worst: float) -> float | None:
    if trial.state == TrialState.COMPLETE:
        return float(trial.values[place])
    so_far = trial.user_attrs.get("values_so_far")
    if trial.state == TrialState.PRUNED and so_far:
        return min(float(so_far[place]), worst)
    return worst if trial.user_attrs.get("status") == "diverged" else None


def propose(
    space: SearchSpace,
    precision: str,
    known: KnownCost,
    trials: int,
    seed: int,
    history: Sequence[FrozenTrial],
    taken: Collection[TrialConfig],
    trial_seed: int,
) -> TrialConfig | None:
    """The next configuration of that precision; drawn by chance for the first third of the trials.

    None if nothing is left. What is predicted not to fit is proposed only where nothing else is left.
    """
    seen, chance = observed(history, known), random.Random(seed)
    memory_of = measured_first(history, known)
    bound = _memory_bound(history, known, memory_of)
    every = list(candidates(space.with_precision(precision), chance, _best(seen), taken, trial_seed))
    fitting = [one for one in every if memory_of(one) < bound(one.precision)] or every
    if not fitting:
        return None
    if sum(seen.complete) < max(2, min(MOST_STARTUP_TRIALS, trials // 3)):
        return chance.choice(fitting)
    gains = expected_gains(space, known, seen, fitting, memory_of)
    return fitting[int(np.argmax(gains))]


def expected_gains(
    space: SearchSpace, known: KnownCost, seen: Observed, tried: Sequence[TrialConfig], memory_of: MemoryOf
) -> Floats:
    """What each candidate is expected to add to the hypervolume; where none adds any, minus the expected quality."""
    told = telling(np.asarray(seen.quality))
    quality = np.asarray(seen.quality)[told]
    points = features(space, [seen.configs[place] for place in told])
    process = GaussianProcess.fit(points, np.log(quality) if known.logarithmic else quality)
    process = process.with_believed(features(space, seen.running))
    mean, spread = process.predict(features(space, tried))
    done = [
        (value, memory_of(config))
        for config, value, complete in zip(seen.configs, seen.quality, seen.complete, strict=True)
        if complete
    ]
    believed, _ = process.predict(features(space, seen.running))
    for config, value in zip(seen.running, np.exp(believed) if known.logarithmic else believed, strict=True):
        done.append((float(value), memory_of(config)))
    memory = np.asarray([memory_of(one) for one in tried])
    steps = staircase(done, known.reference)
    gains = expected_hypervolume(mean, spread, memory, steps, known.reference[1], known.logarithmic)
    return gains if gains.max() > 0 else -mean


def telling(quality: Floats) -> NDArray[np.int64]:
    """The places of the trials that the process is told of, in order: all; of very many the better half of `MOST_TOLD`,
    since the front is near them, and of the others so many of every quality."""
    if len(quality) <= MOST_TOLD:
        return np.arange(len(quality))
    best_first = np.argsort(quality, kind="stable")
    best, others = best_first[: MOST_TOLD // 2], best_first[MOST_TOLD // 2 :]
    return np.sort(np.concatenate([best, others[evenly_spread(len(others), MOST_TOLD // 2)]]))


def staircase(points: Iterable[tuple[float, float]], reference: tuple[float, float]) -> list[tuple[float, float]]:
    """The front of (quality, memory) as steps, cheapest first: from this memory on, this quality has been reached."""
    steps = [(-math.inf, reference[0])]
    for memory, quality in sorted((memory, quality) for quality, memory in points):
        if memory < reference[1] and quality < steps[-1][1]:
            steps.append((memory, quality))
    return steps


def expected_hypervolume(
    mean: Floats,
    spread: Floats,
    memory: Floats,
    steps: Sequence[tuple[float, float]],
    memory_reference: float,
    logarithmic: bool,
) -> Floats:
    """What a point of known memory is expected to add to the hypervolume over the front's steps; all are `m` long.

    Its quality is normal with that mean and spread, or its logarithm is.
    """
    ends = [*(start for start, _ in steps[1:]), memory_reference]
    total = np.zeros(len(mean))
    for (start, height), end in zip(steps, ends, strict=True):
        width = np.maximum(0.0, end - np.maximum(start, memory))
        total += width * expected_improvement(mean, spread, height, logarithmic)
    return total


def expected_improvement(mean: Floats, spread: Floats, height: float, logarithmic: bool) -> Floats:
    """E[max(0, height - y)] where y, or its logarithm, is normal."""
    if not logarithmic:
        z = (height - mean) / spread
        return np.asarray((height - mean) * normal_cdf(z) + spread * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi))
    z = (math.log(height) - mean) / spread
    return np.asarray(height * normal_cdf(z) - np.exp(mean + spread**2 / 2) * normal_cdf(z - spread))


def measured_first(history: Sequence[FrozenTrial], known: KnownCost) -> MemoryOf:
    """Each configuration's memory: measured where its footprint was, else predicted and moved by what predictions of
    its precision were off."""
    measured: dict[Footprint, float] = {}
    errors: dict[str, list[float]] = {}
    for trial in history:
        values = trial.values if trial.state == TrialState.COMPLETE else trial.user_attrs.get("values_so_far")
        if values:
            config, value = config_of(trial), float(values[known.cost])
            measured[Footprint.of(config)] = value
            errors.setdefault(config.precision, []).append(value - known.memory_of(config))
    shift = {precision: float(np.median(found)) for precision, found in errors.items()}

    def memory_of(config: TrialConfig) -> float:
        key = Footprint.of(config)
        return measured[key] if key in measured else known.memory_of(config) + shift.get(config.precision, 0.0)

    return memory_of


def _memory_bound(history: Sequence[FrozenTrial], known: KnownCost, memory_of: MemoryOf) -> Callable[[str], float]:
    """The memory that a configuration of a precision must stay below: the limit, and what did not fit."""
    bound: dict[str, float] = {}
    for trial in history:
        if trial.user_attrs.get("status") == "infeasible":
            config = config_of(trial)
            bound[config.precision] = min(bound.get(config.precision, math.inf), memory_of(config))
    return lambda precision: min(known.limit, bound.get(precision, math.inf))


def _best(seen: Observed) -> list[TrialConfig]:
    """The best configuration of each footprint."""
    best: dict[Footprint, tuple[float, TrialConfig]] = {}
    for config, quality in zip(seen.configs, seen.quality, strict=True):
        key = Footprint.of(config)
        if key not in best or quality < best[key][0]:
            best[key] = (quality, config)
    return [config for _, config in best.values()]
