"""Searches with a Gaussian process of the quality, where memory is known before a trial (algorithm `gp`).

It proposes the configuration that is expected to add most to the hypervolume of (quality, memory), both minimized.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from search_spaces.footprint import Footprint
from search_spaces.parameters import SearchSpace
from search_spaces.trial_config import TrialConfig
from study.search.candidates import candidates, features
from study.search.expected_hypervolume import expected_hypervolume, staircase
from study.search.gaussian_process import GaussianProcess, evenly_spread
from study.search.known_cost import KnownCost, measured_first, memory_bound
from study.search.trial_attributes import config_of

Floats = NDArray[np.float64]
MOST_TOLD = 512  # trials that the process is conditioned on: a proposal's time grows with their number's cube


@dataclass(frozen=True)
class BayesianSearch:
    """A search over a space whose cost is known; the first `startup_trials` complete trials are drawn by chance."""

    space: SearchSpace
    known: KnownCost
    startup_trials: int
    trial_seed: int

    def propose(
        self, precision: str, seed: int, history: Sequence[FrozenTrial], taken: Collection[TrialConfig]
    ) -> TrialConfig | None:
        """The next configuration of that precision that is not `taken`; None if nothing is left.

        What is predicted not to fit is proposed only where nothing else is left.
        """
        seen, chance = observed(history, self.known), random.Random(seed)
        memory_of = measured_first(history, self.known)
        bound = memory_bound(history, self.known, memory_of)
        space = self.space.with_precision(precision)
        every = list(candidates(space, chance, _best(seen), taken, self.trial_seed))
        fitting = [one for one in every if memory_of(one) < bound(one.precision)] or every
        if not fitting:
            return None
        if sum(seen.complete) < self.startup_trials:
            return chance.choice(fitting)
        return fitting[int(np.argmax(self._gains(seen, fitting, memory_of)))]

    def _gains(self, seen: Observed, tried: Sequence[TrialConfig], memory_of: Callable[[TrialConfig], float]) -> Floats:
        """What each candidate is expected to add to the hypervolume; if none adds any, minus the expected quality."""
        known = self.known
        process = self._process(seen)
        mean, spread = process.predict(features(self.space, tried))
        believed, _ = process.predict(features(self.space, seen.running))
        running = np.exp(believed) if known.logarithmic else believed
        ended = zip(seen.configs, seen.quality, seen.complete, strict=True)
        front = [(quality, memory_of(config)) for config, quality, complete in ended if complete]
        front += [(float(one), memory_of(config)) for config, one in zip(seen.running, running, strict=True)]
        steps = staircase(front, known.reference)
        memory = np.asarray([memory_of(one) for one in tried])
        gains = expected_hypervolume(mean, spread, memory, steps, known.reference[1], known.logarithmic)
        return gains if gains.max() > 0 else -mean

    def _process(self, seen: Observed) -> GaussianProcess:
        """The process of the quality, or of its logarithm, that trials have shown; running ones are believed."""
        told = telling(np.asarray(seen.quality))
        quality = np.asarray(seen.quality)[told]
        points = features(self.space, [seen.configs[place] for place in told])
        process = GaussianProcess.fit(points, np.log(quality) if self.known.logarithmic else quality)
        return process.with_believed(features(self.space, seen.running))


@dataclass(frozen=True)
class Observed:
    """What the search knows: configurations with their quality (minimized), and those that still run."""

    configs: tuple[TrialConfig, ...]
    quality: tuple[float, ...]
    complete: tuple[bool, ...]
    running: tuple[TrialConfig, ...]


def observed(history: Sequence[FrozenTrial], known: KnownCost) -> Observed:
    """The quality of the trials so far.

    A diverged trial counts with the worst quality of a complete one. A stopped trial counts with the quality that it
    had reached, but with no worse than that: with more training it would have improved, and was dominated all the same.
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


def telling(quality: Floats) -> NDArray[np.int64]:
    """The places, ascending, of the trials that the process is conditioned on: all, or `MOST_TOLD` of very many.

    Those are the better half of that number, since the front is near them, and others evenly spread over the quality.
    """
    if len(quality) <= MOST_TOLD:
        return np.arange(len(quality))
    best_first = np.argsort(quality, kind="stable")
    best, others = best_first[: MOST_TOLD // 2], best_first[MOST_TOLD // 2 :]
    return np.sort(np.concatenate([best, others[evenly_spread(len(others), MOST_TOLD // 2)]]))


def _best(seen: Observed) -> list[TrialConfig]:
    """The best configuration of each footprint."""
    best: dict[Footprint, tuple[float, TrialConfig]] = {}
    for config, quality in zip(seen.configs, seen.quality, strict=True):
        key = Footprint.of(config)
        if key not in best or quality < best[key][0]:
            best[key] = (quality, config)
    return [config for _, config in best.values()]
