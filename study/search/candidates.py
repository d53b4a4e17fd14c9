"""The candidates of a Bayesian search over a space, and their features as numbers. (no torch, no ray)"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from search_spaces.parameters import Choice, Parameter, Range, SearchSpace, Value
from search_spaces.trial_config import TrialConfig

Floats = NDArray[np.float64]
MOST_CANDIDATES = 2000
DRAWN_CANDIDATES = 1000
JITTERED = 20  # candidates beside each of the best
NEARNESS = 0.1  # how far they lie from it, as a part of a range


def features(space: SearchSpace, configs: Sequence[TrialConfig]) -> Floats:
    """`n x d`: numbers in 0..1 over the space (learning rate and rank by their logarithm), one column for each name."""
    columns = [column for name in _names(space) for column in _columns(space, name, configs)]
    return np.asarray(columns, dtype=float).T.reshape(len(configs), len(columns))


def _names(space: SearchSpace) -> list[str]:
    return [parameter.name for parameter in space.parameters]


def _columns(space: SearchSpace, name: str, configs: Sequence[TrialConfig]) -> list[list[float]]:
    if name in ("precision", "target_modules"):
        return _marks(space, name, configs)
    low, high = _ends(space, name)
    if low == high:
        return []
    scale = math.log if low > 0 and name != "lora_dropout" else float
    span = scale(high) - scale(low)
    return [[(scale(getattr(config, name)) - scale(low)) / span for config in configs]]


def _marks(space: SearchSpace, name: str, configs: Sequence[TrialConfig]) -> list[list[float]]:
    """A column for each value but the first, of 1 where a configuration has it."""
    if name == "precision":
        return [[float(config.precision == one) for config in configs] for one in space.precisions()[1:]]
    others = [set(one) for one in space.target_modules()[1:]]
    return [[float(set(config.target_modules) == one) for config in configs] for one in others]


def _ends(space: SearchSpace, name: str) -> tuple[float, float]:
    """The least and the greatest that a number of the space may be; equal for an alpha that follows from the rank."""
    values = [float(value) for value in space[name].values()]
    return (min(values), max(values)) if values else (0.0, 0.0)


def candidates(
    space: SearchSpace,
    chance: random.Random,
    best: Sequence[TrialConfig],
    taken: Collection[TrialConfig],
    trial_seed: int,
) -> Iterable[TrialConfig]:
    """Configurations that were not taken: all that there are of a small space, else draws, and some near the best.

    In a fixed order, none twice.
    """
    if not any(isinstance(parameter.kind, Range) for parameter in space.parameters):
        every = space.grid([trial_seed]) if space.combinations() <= MOST_CANDIDATES else None
        if every is not None:
            return [config for config in every if config not in taken]
    drawn = [space.sample(lambda parameter: _draw(parameter, chance), trial_seed) for _ in range(DRAWN_CANDIDATES)]
    near = [_near(space, config, chance, trial_seed) for config in best for _ in range(JITTERED)]
    return dict.fromkeys(config for config in (*drawn, *near) if config not in taken)


def _draw(parameter: Parameter, chance: random.Random) -> Value:
    if isinstance(parameter.kind, Choice):
        return chance.choice(parameter.kind.values)
    assert isinstance(parameter.kind, Range)
    return _placed(parameter.kind, chance.random())


def _near(space: SearchSpace, config: TrialConfig, chance: random.Random, trial_seed: int) -> TrialConfig:
    """A configuration of the space with numbers of ranges moved a little; its choices are drawn where it has none."""
    have = space.grid_parameters(config)

    def pick(parameter: Parameter) -> Value:
        value = have.get(parameter.name)
        if value is None or not parameter.may_be(value):
            return _draw(parameter, chance)
        if not isinstance(parameter.kind, Range):
            return value
        place = _place(parameter.kind, float(value)) + chance.gauss(0.0, NEARNESS)
        return _placed(parameter.kind, min(1.0, max(0.0, place)))

    return space.sample(pick, trial_seed)


def _placed(kind: Range, place: float) -> Value:
    """The number at a part of a range."""
    scale, back = (math.log, math.exp) if kind.log else (float, float)
    value = min(kind.high, max(kind.low, back(scale(kind.low) + place * (scale(kind.high) - scale(kind.low)))))
    return round(value) if kind.integer else value


def _place(kind: Range, value: float) -> float:
    scale = math.log if kind.log else float
    span = scale(kind.high) - scale(kind.low)
    return (scale(value) - scale(kind.low)) / span if span else 0.0
