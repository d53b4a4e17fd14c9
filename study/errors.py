"""What is wrong in a user's files, said in one line each. (no torch, no ray)"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

DONE, FAILED, WRONG_INPUT = 0, 1, 2


SHOWN_CHARACTERS = 80


class Absent(Enum):
    """Stands for a value in a fault: there is none, or it would say nothing."""

    MISSING = "missing"
    UNSHOWN = "unshown"


@dataclass(frozen=True)
class ConfigFault:
    """One broken rule: where (file, key path, or line), the value, the rule it breaks, and what to write instead."""

    file: str
    key: str
    value: Any
    rule: str
    remedy: str

    def __str__(self) -> str:
        places = [printable(self.file, 300), self._subject()]
        text = ": ".join([*(place for place in places if place), f"{self.rule.rstrip('. ')}. {self.remedy}".rstrip()])
        return "\n  ".join(printable(line, len(line)) for line in text.split("\n"))

    def _subject(self) -> str:
        key = printable(self.key, 200)
        if self.value is Absent.UNSHOWN:
            return key
        return (
            f"{key} is missing" if self.value is Absent.MISSING else f"{key} = {shown(self.value)}".removeprefix(" = ")
        )


class ConfigError(Exception):
    """The user's files are wrong; `faults` has everything that is."""

    def __init__(self, faults: Iterable[ConfigFault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))


def shown(value: Any) -> str:
    """A value as YAML's flow style writes it, on one line, shortened."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return printable(text, SHOWN_CHARACTERS)


def printable(text: str, length: int) -> str:
    """The text on one line, without what a terminal would obey, shortened in its middle."""
    if len(text) > length:
        text = f"{text[: length - length // 4]} … {text[-length // 4 :]}"
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


class StoreError(Exception):
    """The study directory cannot be used as it is; the message has rule, value and remedy."""

    def __init__(self, rule: str, value: str, remedy: str) -> None:
        super().__init__(rule, value, remedy)
        self.rule, self.value, self.remedy = rule, value, remedy

    def __str__(self) -> str:
        return f"{self.rule}; {self.value}. {self.remedy}"


class PlanError(ValueError):
    """The machines cannot run the study; the message has rule, value, remedy."""


class StudyError(Exception):
    """A study broke off; the message says why, what is kept, and how to go on."""
