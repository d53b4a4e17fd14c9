"""The configurations that a search chooses among, and their features as numbers."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from search_spaces.parameters import Choice, Parameter, Range, SearchSpace, Value
from search_spaces.trial_config import TrialConfig

Floats = NDArray[np.float64]
LISTED_COMBINATIONS = 10_000  # a space with more is taken as inexhaustible
MOST_CANDIDATES = 2000  # of a Bayesian search over a space without ranges; with more, some are drawn
DRAWN_CANDIDATES = 1000
NEAR_CANDIDATES = 20  # beside each of the best configurations
NEARNESS = 0.1  # standard deviation of their distance from it, as a part of a range


def all_configurations(space: SearchSpace, seed: int) -> list[TrialConfig] | None:
    """Every configuration of a space, in the order of its grid; None if there are too many to list, or any number."""
    sizes = [_size(parameter) for parameter in space.parameters]
    product = 1
    for size in sizes:
        if size is None or product * size > LISTED_COMBINATIONS:
            return None
        product *= size
    return replace(space, parameters=tuple(map(_listed, space.parameters))).grid([seed])


def _size(parameter: Parameter) -> int | None:
    if isinstance(parameter.kind, Choice):
        return len(parameter.kind.values)
    if isinstance(parameter.kind, Range):
        return int(parameter.kind.high - parameter.kind.low) + 1 if parameter.kind.integer else None
    return 1


def _listed(parameter: Parameter) -> Parameter:
    if not isinstance(parameter.kind, Range):
        return parameter
    return replace(parameter, kind=Choice(tuple(range(int(parameter.kind.low), int(parameter.kind.high) + 1))))


def candidates(
    space: SearchSpace,
    chance: random.Random,
    best: Sequence[TrialConfig],
    taken: Collection[TrialConfig],
    trial_seed: int,
) -> Iterable[TrialConfig]:
    """Distinct configurations that are not `taken`, in a fixed order.

    All of a small space without ranges; of another, draws, and some near the `best`.
    """
    if not any(isinstance(parameter.kind, Range) for parameter in space.parameters):
        every = space.grid([trial_seed]) if space.combinations() <= MOST_CANDIDATES else None
        if every is not None:
            return [config for config in every if config not in taken]
    drawn = [space.sample(lambda parameter: _draw(parameter, chance), trial_seed) for _ in range(DRAWN_CANDIDATES)]
    near = [_near(space, config, chance, trial_seed) for config in best for _ in range(NEAR_CANDIDATES)]
    return dict.fromkeys(config for config in (*drawn, *near) if config not in taken)


def _draw(parameter: Parameter, chance: random.Random) -> Value:
    if isinstance(parameter.kind, Choice):
        return chance.choice(parameter.kind.values)
    assert isinstance(parameter.kind, Range)
    return _placed(parameter.kind, chance.random())


def _near(space: SearchSpace, config: TrialConfig, chance: random.Random, trial_seed: int) -> TrialConfig:
    """The configuration with its numbers from ranges moved a little, and drawn values where it has none of its own."""
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
    """The number at a place of a range, from 0 for its low end to 1 for its high end."""
    scale, back = (math.log, math.exp) if kind.log else (float, float)
    value = min(kind.high, max(kind.low, back(scale(kind.low) + place * (scale(kind.high) - scale(kind.low)))))
    return round(value) if kind.integer else value


def _place(kind: Range, value: float) -> float:
    scale = math.log if kind.log else float
    span = scale(kind.high) - scale(kind.low)
    return (scale(value) - scale(kind.low)) / span if span else 0.0


def features(space: SearchSpace, configs: Sequence[TrialConfig]) -> Floats:
    """`n x d` numbers from 0 to 1 over the space, those of rank, alpha and learning rate by their logarithm.

    A parameter that is a number has one column, if it varies; another has one for each of its values but the first.
    """
    columns = [column for name in _names(space) for column in _columns(space, name, configs)]
    return np.asarray(columns, dtype=float).T.reshape(len(configs), len(columns))


def _names(space: SearchSpace) -> list[str]:
    return [parameter.name for parameter in space.parameters]


def _columns(space: SearchSpace, name: str, configs: Sequence[TrialConfig]) -> list[list[float]]:
    if name in ("precision", "target_modules", "layers"):
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
    if name == "layers":
        return [[float(config.layers == one) for config in configs] for one in space.layers()[1:]]
    others = [set(one) for one in space.target_modules()[1:]]
    return [[float(set(config.target_modules) == one) for config in configs] for one in others]


def _ends(space: SearchSpace, name: str) -> tuple[float, float]:
    """The least and the greatest value of a number of the space; equal for an alpha that follows from the rank."""
    values = [float(value) for value in space[name].values()]
    return (min(values), max(values)) if values else (0.0, 0.0)
