"""The kinds of parameters, the values they take, and target modules as one text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from search_spaces.layer_ranges import parse_layers
from search_spaces.target_modules import TARGET_SETS, join_modules, split_modules

__all__ = [
    "Choice", "Conditions", "Fixed", "Kind", "Parameter", "Range", "RankTimes", "Value",
    "join_modules", "split_modules", "written",
]  # fmt: skip

# What Optuna stores: target modules as `join_modules` has them, layers as `layers_text` has them.
Value = str | int | float
Conditions = tuple[tuple[str, tuple[Value, ...]], ...]  # all must hold: the parameter's value is one of these


@dataclass(frozen=True)
class Fixed:
    """One value for all trials."""

    value: Value


@dataclass(frozen=True)
class Choice:
    """One of several distinct values."""

    values: tuple[Value, ...]


@dataclass(frozen=True)
class Range:
    """A number from `low` to `high`, both included, uniform in itself or with `log` in its logarithm."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def midpoint(self) -> float:
        """The middle, on a log scale the geometric one; a whole number for an integer range."""
        # Roots first: the product of two tiny numbers would be 0.
        middle = math.sqrt(self.low) * math.sqrt(self.high) if self.log else (self.low + self.high) / 2
        middle = min(max(middle, self.low), self.high)
        return round(middle) if self.integer else middle


@dataclass(frozen=True)
class RankTimes:
    """`factor` times the rank: a constant scaling of the update, since that is alpha / r."""

    factor: float


Kind = Fixed | Choice | Range | RankTimes


@dataclass(frozen=True)
class Parameter:
    """One parameter of a space; where a condition of `when` does not hold, it is `otherwise`."""

    name: str
    kind: Kind
    when: Conditions = ()
    otherwise: Value | None = None

    def values(self) -> tuple[Value, ...]:
        """Every value it may take, of a range the two ends; those of `rank_times` follow from the rank."""
        found: tuple[Value, ...] = ()
        if isinstance(self.kind, Fixed):
            found = (self.kind.value,)
        elif isinstance(self.kind, Choice):
            found = self.kind.values
        elif isinstance(self.kind, Range):
            found = (self.kind.low, self.kind.high)
        return found if self.otherwise is None else (*found, self.otherwise)

    def may_be(self, value: Value) -> bool:
        """Whether it can take this value."""
        if value in self.values() or isinstance(self.kind, RankTimes):
            return True
        if isinstance(self.kind, Range) and not isinstance(value, str):
            return self.kind.low <= value <= self.kind.high and not (self.kind.integer and value % 1)
        return False

    def depends_on(self) -> tuple[str, ...]:
        """The parameters that must be known before it."""
        of_rank = ("rank",) if isinstance(self.kind, RankTimes) else ()
        return (*(name for name, _ in self.when), *of_rank)

    def to_yaml(self) -> Any:
        """The form that a space's YAML writes."""
        if isinstance(self.kind, Fixed):
            return self._written(self.kind.value)
        form: dict[str, Any]
        if isinstance(self.kind, Choice):
            form = {"choice": [self._written(value) for value in self.kind.values]}
        elif isinstance(self.kind, Range):
            name = ("log_" if self.kind.log else "") + ("int" if self.kind.integer else "float")
            form = {name: [self.kind.low, self.kind.high]}
        else:
            form = {"rank_times": self.kind.factor}
        if self.when:
            form["when"] = {name: [written(name, value) for value in values] for name, values in self.when}
            form["otherwise"] = None if self.otherwise is None else self._written(self.otherwise)
        return form

    def _written(self, value: Value) -> Any:
        return written(self.name, value)


def written(name: str, value: Value) -> Any:
    """A value as YAML has it: target modules without a set's name, and a range of layers, as a list."""
    if name == "target_modules" and isinstance(value, str) and value not in TARGET_SETS:
        return list(split_modules(value))
    if name == "layers" and isinstance(layers := parse_layers(value), tuple):
        return list(layers)
    return value
