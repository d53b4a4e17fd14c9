"""Errors that the user can mend, their exit codes, and how a fault in the user's files is worded."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from study.secrets import masked, masked_value, masked_word

DONE, FAILED, WRONG_INPUT = 0, 1, 2  # what `python -m study` exits with
SHOWN_CHARACTERS = 80  # of a value in a message
TRACEBACK_VARIABLE = "LORA_FRONTIER_TRACEBACK"  # of the environment: where set, it is shown where a fault came from


class UserError(Exception):
    """What the user can mend: the message says the rule, the value and the remedy, and is shown without a traceback."""

    exit_code: ClassVar[int] = WRONG_INPUT

    def __str__(self) -> str:
        return masked(super().__str__())


class Absent(Enum):
    """Stands for a value in a fault: there is none, or it would say nothing."""

    MISSING = "missing"
    UNSHOWN = "unshown"


@dataclass(frozen=True)
class ConfigFault:
    """One broken rule: where (file, key path, or line), the value, the rule it breaks, and what to write instead.

    Its text hides what may be secret of them.
    """

    file: str
    key: str
    value: Any
    rule: str
    remedy: str

    def __str__(self) -> str:
        places = [printable(masked_word(self.file), 300), self._subject()]
        words = masked(f"{self.rule.rstrip('. ')}. {self.remedy}".rstrip())
        text = ": ".join([*(place for place in places if place), words])
        return "\n  ".join(printable(line, len(line)) for line in text.split("\n"))

    def _subject(self) -> str:
        key = printable(masked_word(self.key), 200)
        if isinstance(self.value, Absent):
            return f"{key} is missing" if self.value is Absent.MISSING else key
        return f"{key} = {shown(masked_value(self.key, self.value))}".removeprefix(" = ")


class ConfigError(UserError):
    """The user's files or options are wrong; `faults` has everything that is, and the message a line for each."""

    def __init__(self, faults: Iterable[ConfigFault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))

    def __str__(self) -> str:
        return str(self.args[0])  # each fault has hidden what may be secret of it

    @classmethod
    def of(cls, file: str, key: str, value: Any, rule: str, remedy: str) -> ConfigError:
        """Returns the error of a single fault."""
        return cls([ConfigFault(file, key, value, rule, remedy)])


class StoreError(UserError):
    """A study's directory, or its place in an object store, cannot be used as it is."""

    def __init__(self, rule: str, value: str, remedy: str) -> None:
        super().__init__(rule, value, remedy)
        self.rule, self.value, self.remedy = rule, value, remedy

    def __str__(self) -> str:
        return masked(f"{self.rule}; {self.value}. {self.remedy}")


class PlanError(UserError):
    """The machines cannot run the study."""


class StudyError(UserError):
    """A study broke off; the message says why, what is kept, and how to continue."""

    exit_code = FAILED


def shown(value: Any) -> str:
    """Returns a value as YAML's flow style writes it, on one line, shortened."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return printable(text, SHOWN_CHARACTERS)


def printable(text: str, length: int) -> str:
    """Returns the text on one line, without what a terminal would obey, shortened in its middle."""
    if len(text) > length:
        text = f"{text[: length - length // 4]} … {text[-length // 4 :]}"
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
