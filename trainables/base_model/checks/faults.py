"""Defines what is wrong with a base model, as faults of its files, and the error that carries them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.shown_values import SHOWN_PATH_CHARACTERS, shortened, shown


@dataclass(frozen=True)
class ModelFault:
    """One broken rule of a base model's file: its path, the key, the value there, the rule, and the remedy.

    `key` is empty where the fault is of the whole file; `value` is then what was found in its place.
    """

    file: str
    key: str
    value: Any
    rule: str
    remedy: str

    def __str__(self) -> str:
        found = f"{self.key} = {shown(self.value)}" if self.key else str(self.value)
        return f"{shortened(self.file, SHOWN_PATH_CHARACTERS)}: {found}: {self.rule}. {self.remedy}"


class BaseModelError(ValueError):
    """The base model cannot be used as asked; the message says the rule, the value and the remedy.

    `faults` are those of the model's own files, each with its place; empty where the message is all there is to say.
    """

    def __init__(self, message: str, faults: Iterable[ModelFault] = ()) -> None:
        self.faults = tuple(faults)
        super().__init__(message)

    @classmethod
    def of(cls, faults: Iterable[ModelFault]) -> BaseModelError:
        """Returns the error of one or more faults; its message has a line for each."""
        found = tuple(faults)
        return cls("\n".join(map(str, found)), found)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.faults)


def raise_any(faults: Iterable[ModelFault]) -> None:
    """Raises BaseModelError with all the faults; returns where there is none."""
    found = tuple(faults)
    if found:
        raise BaseModelError.of(found)


def whole_file(path: str | Path, found: str, rule: str, remedy: str) -> ModelFault:
    """Returns the fault of a whole file: what was found there, and what it must be."""
    return ModelFault(str(path), "", found, rule, remedy)
