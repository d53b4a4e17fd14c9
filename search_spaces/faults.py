"""What is wrong with a search space or a configuration of it, as values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BrokenRule:
    """One rule that a configuration breaks: the field's name, the rule, and what was found instead (`it is 0`)."""

    name: str
    rule: str
    found: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.rule}; {self.found}".removesuffix("; ")


class TrialConfigError(ValueError):
    """A configuration that cannot be trained; `broken` has every rule that it breaks."""

    def __init__(self, broken: Iterable[BrokenRule]) -> None:
        self.broken = tuple(broken)
        super().__init__(self.broken)

    def __str__(self) -> str:
        return "\n".join(map(str, self.broken))


@dataclass(frozen=True)
class SpaceFault:
    """One broken rule of a space; `key` is its path in the file, `missing` that there is no value."""

    key: str
    value: Any
    rule: str
    remedy: str
    missing: bool = False

    def __str__(self) -> str:
        place = f"{self.key} is missing" if self.missing else f"{self.key} = {self.value!r}"
        return f"{place}: {self.rule}. {self.remedy}"


class SpaceError(ValueError):
    """A space that cannot be read; `faults` has everything that is wrong."""

    def __init__(self, faults: Iterable[SpaceFault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))
