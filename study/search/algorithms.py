"""The search algorithms: each proposes a configuration as a function of the trials so far.

Random search, TPE and NSGA-II are Optuna's samplers. A Gaussian process is our own where memory is known before a trial
(`bayesian.py`), else Optuna's. A grid proposes nothing: its trials are planned from the start (`planned_trials.py`).

A new one is a case of `sampler` here, and its name in `SearchAlgorithm` of `study.config.search_sections`.
"""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy as shallow_copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from search_spaces.parameters import Choice, Parameter, Range, SearchSpace, Value
from search_spaces.trial_config import TrialConfig
from study.config.search_sections import SearchAlgorithm, SearchSettings
from study.search.candidates import all_configurations
from study.search.known_cost import KnownCost

if TYPE_CHECKING:
    from study.search.bayesian import BayesianSearch

FITS = "constraints:fits"  # Optuna's attribute of a constraint of that name, which is violated above 0
GENERATION = "NSGAIISampler:generation"  # Optuna's attribute of the trials that NSGA-II breeds from
REDRAWS = 32  # how often another is drawn in the place of a configuration that is taken
MAX_STARTUP_TRIALS = 10  # of TPE, Optuna's own default
MAX_GP_STARTUP_TRIALS = 8
MIN_POPULATION, MAX_POPULATION = 4, 50  # of NSGA-II; the latter is Optuna's own default


@dataclass(frozen=True)
class Sampling:
    """An algorithm with its settings, on a space and objectives of these directions."""

    space: SearchSpace
    settings: SearchSettings
    trial_seed: int
    directions: tuple[str, ...]
    known: KnownCost | None = None  # where only quality needs trials, `gp` makes use of it

    def propose(
        self, precision: str, number: int, history: Sequence[FrozenTrial], taken: Collection[TrialConfig]
    ) -> tuple[FrozenTrial, TrialConfig] | None:
        """Trial `number` of the study, of that precision: as Optuna keeps it, running, and as a configuration.

        It depends on the arguments alone: the sampler is seeded from the study's seed and the number, and works on a
        copy of the history in memory. A configuration that is `taken` is drawn anew up to `REDRAWS` times; then one is
        drawn by chance from what is left. None if nothing is left.
        """
        if self.settings.algorithm == "gp" and self.known is not None:
            config = self._bayesian(self.known).propose(precision, self._seed(number), history, taken)
            return None if config is None else (fixed_trial(self.space, config), config)
        copy = self._copy(history, sampler(self.settings.algorithm, self._seed(number), self.settings.trials))
        fixed = {"precision": precision} if isinstance(self.space["precision"].kind, Choice) else {}
        for _ in range(REDRAWS):
            config = self._draw(copy, fixed)
            drawn = _last(copy)
            if config not in taken:
                return drawn, config
            copy.tell(drawn.number, state=TrialState.FAIL)  # samplers leave failed trials out
        return self._draw_from_rest(precision, number, copy, taken)

    def every(self, precision: str) -> list[TrialConfig] | None:
        """Every configuration of that precision; None if they are too many to list."""
        return all_configurations(self.space.with_precision(precision), self.trial_seed)

    def _seed(self, number: int) -> int:
        return seed_of(self.settings.seed, number)

    def _bayesian(self, known: KnownCost) -> BayesianSearch:
        from study.search.bayesian import BayesianSearch  # not above: other studies need no SciPy

        return BayesianSearch(self.space, known, gp_startup_trials(self.settings.trials), self.trial_seed)

    def _copy(self, history: Sequence[FrozenTrial], by: optuna.samplers.BaseSampler) -> optuna.Study:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        copy = optuna.create_study(directions=self.directions, sampler=by)
        if self.settings.algorithm == "random":  # it learns nothing
            return copy
        told = constrained(history, self.directions)
        copy.add_trials(map(_founding if self.settings.algorithm == "nsga2" else _bare, told))
        return copy

    def _draw(self, copy: optuna.Study, fixed: Mapping[str, Value]) -> TrialConfig:
        copy.enqueue_trial(dict(fixed))
        trial = copy.ask()
        return self.space.sample(_suggested_by(trial), self.trial_seed)

    def _draw_from_rest(
        self, precision: str, number: int, copy: optuna.Study, taken: Collection[TrialConfig]
    ) -> tuple[FrozenTrial, TrialConfig] | None:
        rest = [config for config in self.every(precision) or () if config not in taken]
        if not rest:
            return None
        config = random.Random(self._seed(number)).choice(rest)
        self._draw(copy, self.space.grid_parameters(config))
        return _last(copy), config


def _last(study: optuna.Study) -> FrozenTrial:
    """The trial that was drawn last; Optuna's own `trials` would copy them all, deeply, at each call."""
    return study.get_trials(deepcopy=False)[-1]


def _bare(trial: FrozenTrial) -> FrozenTrial:
    """The trial without our own attributes: no sampler reads them, and copying them would take longer than all else."""
    bare = shallow_copy(trial)
    bare.user_attrs = {}
    return bare


def _founding(trial: FrozenTrial) -> FrozenTrial:
    """The trial without our own attributes; if NSGA-II did not draw it, it counts to the first generation."""
    bare = _bare(trial)
    bare.system_attrs = {GENERATION: 0, **trial.system_attrs}
    return bare


def constrained(history: Sequence[FrozenTrial], directions: Sequence[str]) -> Sequence[FrozenTrial]:
    """The trials as samplers take them: a trial that did not fit violates a constraint, so that they avoid its like.

    Samplers leave failed trials out, so it is given to them as complete, with the worst values of the complete ones;
    Optuna's Gaussian process learns from those too.
    """
    if not any(map(_did_not_fit, history)):
        return history
    values = [trial.values for trial in history if trial.state == TrialState.COMPLETE]
    worst = [
        max(own) if direction == "minimize" else min(own)
        for direction, *own in (zip(directions, *values, strict=True) if values else ())
    ]
    return [_with_constraint(trial, worst or [0.0] * len(directions)) for trial in history]


def _did_not_fit(trial: FrozenTrial) -> bool:
    return bool(trial.state.is_finished() and trial.user_attrs.get("status") == "infeasible")


def _with_constraint(trial: FrozenTrial, worst: Sequence[float]) -> FrozenTrial:
    violated = _did_not_fit(trial)
    if not violated and trial.state != TrialState.COMPLETE:
        return trial
    return optuna.trial.create_trial(
        values=worst if violated else trial.values,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs={**trial.system_attrs, FITS: float(violated)},
    )


def fixed_trial(space: SearchSpace, config: TrialConfig) -> FrozenTrial:
    """A running trial of this configuration, as Optuna keeps it."""
    parameters = space.grid_parameters(config)
    kinds = {name: distribution(space[name]) for name in parameters}
    return optuna.trial.create_trial(state=TrialState.RUNNING, params=parameters, distributions=kinds)


def distribution(parameter: Parameter) -> BaseDistribution:
    """A choice's or range's values for Optuna. Precision is a choice of all, also where a phase fixes it."""
    kind = parameter.kind
    if isinstance(kind, Choice):
        return CategoricalDistribution(kind.values)
    if isinstance(kind, Range) and kind.integer:
        return IntDistribution(int(kind.low), int(kind.high), log=kind.log)
    if isinstance(kind, Range):
        return FloatDistribution(kind.low, kind.high, log=kind.log)
    raise TypeError(f"{parameter.name} must be a choice or a range; it is {kind!r}")


def sampler(algorithm: SearchAlgorithm, seed: int, trials: int) -> optuna.samplers.BaseSampler:
    """Optuna's sampler for a search of so many trials, with settings that make it useful in few. Raises ValueError.

    - TPE (Ozaki et al. 2022, doi.org/10.1613/jair.1.13188) first draws by chance: a third of the trials, at most 10, as
      is its default. It counts running trials as bad (the "constant liar"), so that simultaneous trials differ.
    - NSGA-II (Deb et al. 2002, doi.org/10.1109/4235.996017) draws its first generation by chance and breeds the others.
      A generation has a third of the trials, at most 50, as is its default, so that two generations are bred or more;
      and at least 4, so that there are parents to choose from.
    - The Gaussian process is Optuna's, over all objectives: for studies in which quality is not all that is unknown.
    """
    if algorithm == "tpe":
        startup = max(1, min(MAX_STARTUP_TRIALS, trials // 3))
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, constant_liar=True)
    if algorithm == "nsga2":
        population = max(MIN_POPULATION, min(MAX_POPULATION, trials // 3))
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=population)
    if algorithm == "gp":
        startup = gp_startup_trials(trials)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
    if algorithm == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    raise ValueError(f"algorithm must be random, tpe, nsga2 or gp; it is {algorithm!r}")


def gp_startup_trials(trials: int) -> int:
    """How many trials a Gaussian process needs before it proposes: a third of them, from 2 to 8."""
    return max(2, min(MAX_GP_STARTUP_TRIALS, trials // 3))


def seed_of(seed: int, number: int) -> int:
    """A seed for one trial of a study, from 0 to 2**32 - 1."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:4], "big")


def _suggested_by(trial: optuna.Trial) -> Callable[[Parameter], Any]:
    suggest = {
        CategoricalDistribution: lambda name, kind: trial.suggest_categorical(name, kind.choices),
        IntDistribution: lambda name, kind: trial.suggest_int(name, kind.low, kind.high, log=kind.log),
        FloatDistribution: lambda name, kind: trial.suggest_float(name, kind.low, kind.high, log=kind.log),
    }

    def suggested(parameter: Parameter) -> Any:
        kind = distribution(parameter)
        return suggest[type(kind)](parameter.name, kind)

    return suggested
