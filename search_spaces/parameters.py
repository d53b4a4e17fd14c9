"""A search space: what each parameter of a trial may be, and the configurations that it allows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from search_spaces.faults import SpaceError, SpaceFault
from search_spaces.layer_ranges import ALL, Layers, parse_layers
from search_spaces.parameter_kinds import (
    Choice,
    Fixed,
    Parameter,
    Range,
    RankTimes,
    Value,
    join_modules,
    split_modules,
)
from search_spaces.space_parsing import in_dependency_order, parse_parameters
from search_spaces.trial_config import TrialConfig

__all__ = [
    "Choice", "Fixed", "Parameter", "Range", "RankTimes", "SearchSpace", "SpaceError", "SpaceFault", "Value",
    "parse_space",
]  # fmt: skip


UNWRITTEN = (Parameter("layers", Fixed(ALL)),)  # in a space that does not have them


def parse_space(mapping: Any) -> SearchSpace:
    """Reads a space as its YAML has it. Raises SpaceError with every fault."""
    return SearchSpace(parse_parameters(mapping), _spelled(mapping["target_modules"]))


@dataclass(frozen=True)
class SearchSpace:
    """The parameters of a space, in its file's order; every configuration that they allow is valid.

    `spelled` are names of linear layers as the file spells them out, of which a list may be a set to `parameters`.
    """

    parameters: tuple[Parameter, ...]
    spelled: frozenset[str] = field(default=frozenset(), compare=False)

    def sample(self, suggest: Callable[[Parameter], Value], seed: int) -> TrialConfig:
        """One configuration; `suggest` is called for every choice or range whose conditions hold, in a fixed order.

        It returns one of the values, or a number of the range, as Optuna has it (see `Value`).
        """
        return self._resolve(suggest, seed)

    def grid(self, seeds: Sequence[int]) -> list[TrialConfig]:
        """All configurations, the last parameter varying fastest and the seed faster still; a range is its midpoint."""
        names = [parameter.name for parameter in self.parameters]
        configs: dict[TrialConfig, None] = {}  # ordered; conditions make some combinations equal
        for combination in itertools.product(*map(_grid_values, self.parameters)):
            picked = dict(zip(names, combination, strict=True))
            configs[self._resolve(_pick_from(picked), 0)] = None
        return [replace(config, seed=seed) for config in configs for seed in seeds]

    def combinations(self) -> int:
        """How many combinations of values a grid has: at least its configurations, counted without building them."""
        return math.prod(len(_grid_values(parameter)) for parameter in self.parameters)

    def grid_parameters(self, config: TrialConfig) -> dict[str, Value]:
        """The values for which `sample` returns this configuration, for Optuna's `enqueue_trial`."""
        modules, layers = join_modules(config.target_modules), config.layer_range
        known: dict[str, Value] = {**config.to_dict(), "target_modules": modules, "layers": layers}
        asked = {}
        for parameter in in_dependency_order(self.parameters):
            if isinstance(parameter.kind, Choice | Range) and _holds(parameter, known):
                values = parameter.kind.values if isinstance(parameter.kind, Choice) else ()
                value = known[parameter.name]
                asked[parameter.name] = next((one for one in values if one == value), value)  # 16, where 16.0 is known
        return asked

    def precisions(self) -> tuple[str, ...]:
        """The precisions that occur, in the file's order."""
        return tuple(map(str, self["precision"].values()))

    def target_modules(self) -> tuple[tuple[str, ...], ...]:
        """The sets of target modules that occur, in the file's order."""
        return tuple(dict.fromkeys(split_modules(str(value)) for value in self["target_modules"].values()))

    def layers(self) -> tuple[Layers, ...]:
        """The restrictions to layers that occur, in the file's order; None is all layers."""
        return tuple(dict.fromkeys(map(parse_layers, self["layers"].values())))

    def targets(self) -> tuple[tuple[tuple[str, ...], Layers], ...]:
        """The target modules and layers that occur together, in the order of a grid."""
        needed = [self[name] for name in ("target_modules", "layers")]
        for parameter in needed:  # grows: what conditions depend on decides, too
            needed += [self[name] for name in parameter.depends_on() if self[name] not in needed]
        order = in_dependency_order(needed)
        found: dict[tuple[tuple[str, ...], Layers], None] = {}
        for combination in itertools.product(*(_deciding_values(parameter, needed) for parameter in order)):
            picked = {parameter.name: value for parameter, value in zip(order, combination, strict=True)}
            known: dict[str, Value] = {}
            for parameter in order:
                known[parameter.name] = _value(parameter, known, _pick_from(picked))
            found[split_modules(str(known["target_modules"])), parse_layers(known["layers"])] = None
        return tuple(found)

    def with_precision(self, precision: str) -> SearchSpace:
        """This space with one of its precisions fixed, and what depends on it decided."""
        if precision not in self.precisions():
            there = ", ".join(self.precisions())
            raise ValueError(f"precision must be one of the space's {there}; it is {precision!r}")
        decided = {"precision": Parameter("precision", Fixed(precision))}
        for parameter in in_dependency_order(self.parameters):
            decided.setdefault(parameter.name, _decide(parameter, decided))
        return replace(self, parameters=tuple(decided[parameter.name] for parameter in self.parameters))

    def to_mapping(self) -> dict[str, Any]:
        """The form that `parse_space` reads, for YAML."""
        return {parameter.name: parameter.to_yaml() for parameter in self.parameters}

    def __getitem__(self, name: str) -> Parameter:
        """The parameter of that name; of one that may be left out and is, its usual value."""
        return next(parameter for parameter in (*self.parameters, *UNWRITTEN) if parameter.name == name)

    def _resolve(self, pick: Callable[[Parameter], Value], seed: int) -> TrialConfig:
        known: dict[str, Value] = {}
        for parameter in in_dependency_order(self.parameters):
            known[parameter.name] = _value(parameter, known, pick)
        return TrialConfig.from_dict({**known, "seed": seed})


def _spelled(form: Any) -> frozenset[str]:
    """The texts in the lists of a parameter's form."""
    if isinstance(form, Mapping):
        return frozenset().union(*(_spelled(one) for name, one in form.items() if name in ("choice", "otherwise")))
    if isinstance(form, list):
        return frozenset().union(*({one} if isinstance(one, str) else _spelled(one) for one in form))
    return frozenset()


def _value(parameter: Parameter, known: Mapping[str, Value], pick: Callable[[Parameter], Value]) -> Value:
    if not _holds(parameter, known) and parameter.otherwise is not None:
        return parameter.otherwise
    if isinstance(parameter.kind, Fixed):
        return parameter.kind.value
    if isinstance(parameter.kind, RankTimes):
        return parameter.kind.factor * known["rank"]  # type: ignore[operator]
    return pick(parameter)


def _holds(parameter: Parameter, known: Mapping[str, Value]) -> bool:
    return all(known[name] in values for name, values in parameter.when)


def _grid_values(parameter: Parameter) -> tuple[Value, ...]:
    if isinstance(parameter.kind, Choice):
        return parameter.kind.values
    if isinstance(parameter.kind, Range):
        return (parameter.kind.midpoint(),)
    return (parameter.kind.value if isinstance(parameter.kind, Fixed) else parameter.kind.factor,)


def _deciding_values(parameter: Parameter, others: Sequence[Parameter]) -> tuple[Value, ...]:
    """Values that stand for all of a parameter, as far as other parameters' conditions tell them apart."""
    if not isinstance(parameter.kind, Range):
        return _grid_values(parameter)
    kind = parameter.kind
    named = (value for other in others for name, wanted in other.when if name == parameter.name for value in wanted)
    ends = (kind.low, kind.midpoint(), kind.high)
    return tuple(dict.fromkeys((*ends, *(one for one in named if kind.low <= one <= kind.high))))  # type: ignore[operator]


def _pick_from(values: Mapping[str, Value]) -> Callable[[Parameter], Value]:
    return lambda parameter: values[parameter.name]


def _decide(parameter: Parameter, known: Mapping[str, Parameter]) -> Parameter:
    """The parameter without conditions that always hold; fixed where one never does."""
    conditions = []
    for other, wanted in parameter.when:
        possible = tuple(value for value in wanted if known[other].may_be(value))
        if not possible and parameter.otherwise is not None:
            return Parameter(parameter.name, Fixed(parameter.otherwise))
        if not isinstance(known[other].kind, Fixed):
            conditions.append((other, possible))
    return replace(parameter, when=tuple(conditions), otherwise=parameter.otherwise if conditions else None)
