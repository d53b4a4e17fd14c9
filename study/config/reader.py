"""Reads a study file's mappings value by value, and notes every fault on the way."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from search_spaces.faults import SpaceError
from search_spaces.parameter_forms import known
from study.config.rules import Rule
from study.errors import Absent, ConfigError, ConfigFault, shown

OVERRIDES = "--set"  # stands for the file of values that came from the command line
REQUIRED: Any = Absent.MISSING  # stands for the default of a required value, and is read where it is missing or wrong


class Faults:
    """The faults found so far in a study file, in the overrides of its values, and in its space file."""

    def __init__(self, file: str, overridden: Collection[str] = ()) -> None:
        self._file = file
        self._overridden = tuple(overridden)
        self._found: list[ConfigFault] = []

    def add(self, key: str, value: Any, rule: str, remedy: str) -> None:
        """Notes one broken rule; its file is `--set` where the value came from there."""
        from_overrides = any(_holds(path, key) for path in self._overridden)
        self._found.append(ConfigFault(OVERRIDES if from_overrides else self._file, key, value, rule, remedy))

    def add_space(self, key: str, error: SpaceError, file: Path | None = None) -> None:
        """Notes the faults of a space, or of a configuration of it, under `key`; or else of the space's own file."""
        for fault in error.faults:
            place = f"{key}.{fault.key}".rstrip(".")
            value = Absent.MISSING if fault.missing else fault.value
            if file is None:
                self.add(place, value, fault.rule, fault.remedy)
            else:
                self.extend([ConfigFault(str(file), place, value, fault.rule, fault.remedy)])

    def extend(self, faults: Iterable[ConfigFault]) -> None:
        """Notes faults as they are."""
        self._found += faults

    def clean(self, *keys: str) -> bool:
        """Whether there is no fault of these keys, of keys below them, or of mappings that hold them."""
        found = [fault.key for fault in self._found]
        return not any(_holds(key, one) or _holds(one, key) for key in keys for one in found)

    def raise_any(self) -> None:
        """Raises ConfigError with every fault, each once, if there are any."""
        if self._found:
            raise ConfigError({repr(fault): fault for fault in self._found}.values())


def _holds(path: str, key: str) -> bool:
    return key == path or key.startswith(f"{path}.")


class Section:
    """One mapping of a study file. Read its values, then `end` it: a key that was not read is a fault.

    With `values` None, for a mapping that is missing or something else, every key reads as its default, and no further
    faults are noted.
    """

    def __init__(self, faults: Faults, key: str, values: Mapping[str, Any] | None) -> None:
        self.faults = faults
        self.key = key
        self._values = values
        self._read: list[str] = []

    def path(self, name: str) -> str:
        """The whole key of a value."""
        return f"{self.key}.{name}" if self.key else name

    def raw(self, name: str) -> Any:
        """The value as it is written, REQUIRED where there is none; the caller checks it."""
        self._read.append(name)
        return REQUIRED if self._values is None else self._values.get(name, REQUIRED)

    def get(self, name: str, rule: Rule, default: Any = REQUIRED) -> Any:
        """The value under `name`, converted; its default where it is missing or breaks the rule, which is noted."""
        value = self.raw(name)
        if value is not REQUIRED:
            return self._checked(name, value, rule, default)
        if default is REQUIRED:
            self.missing(name, rule.example)
        return default

    def items(self, name: str, rule: Rule, item_rule: Rule, default: tuple[Any, ...]) -> tuple[Any, ...]:
        """The values of a list that keep `item_rule` and are distinct; its default where the list breaks `rule`."""
        values = self.get(name, rule, default)
        if not isinstance(values, list):
            return default
        found: list[Any] = []
        for place, value in enumerate(values):
            item = self._checked(f"{name}.{place}", value, item_rule, REQUIRED)
            if item in found:
                self.repeated(f"{name}.{place}", item)
            elif item is not REQUIRED:
                found.append(item)
        return tuple(found)

    def section(self, name: str, example: str = "") -> Section:
        """The mapping under `name`, which may be left out if there is no example."""
        value = self.raw(name)
        if value is REQUIRED:
            if example:
                self.missing(name, example)
            return Section(self.faults, self.path(name), None if example else {})
        return self.part(name, value, example)

    def part(self, name: str, value: Any, example: str) -> Section:
        """The value under `name` as a section of its own."""
        if isinstance(value, Mapping):
            return Section(self.faults, self.path(name), value)
        remedy = _write(name, example) if example else f"Write its keys below `{name}`, or leave it out."
        self.faults.add(self.path(name), value, "must hold keys and values", remedy)
        return Section(self.faults, self.path(name), None)

    def missing(self, name: str, example: str) -> None:
        """Notes that a value must be there."""
        if self._values is not None:
            self.faults.add(self.path(name), Absent.MISSING, "must be given", _write(name, example))

    def repeated(self, name: str, value: Any) -> None:
        """Notes that a value of a list repeats an earlier one."""
        self.faults.add(self.path(name), value, "must differ from those before it", "Leave it out, or change it.")

    def end(self) -> None:
        """Notes every key that was not read."""
        for name in self._values or ():
            if name not in self._read:
                rule = f"is no key of {self.key.rstrip('.0123456789') or 'a study file'}"
                self.faults.add(self.path(name), (self._values or {})[name], rule, known(name, self._read))

    def _checked(self, name: str, value: Any, rule: Rule, default: Any) -> Any:
        if rule.holds(value):
            return rule.convert(value)
        example = rule.example or (default if isinstance(default, str) else shown(default))
        remedy = rule.remedy(value) or _write(name.split(".")[0], example)
        self.faults.add(self.path(name), value, rule.text, remedy)
        return default


def _write(name: str, example: str) -> str:
    return f"Write for example `{name}: {example}`."
