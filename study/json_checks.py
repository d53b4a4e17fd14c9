"""Checks of JSON values: each returns the rule that a value breaks, with its key and the value."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

from study.errors import printable, shown

Check = Callable[[Any, str], str]  # (value, its key) -> what is wrong, empty where nothing is

MOST_KEYS = 200  # of an object whose keys are free
MOST_NUMBER = sys.float_info.max


def number(low: float = -MOST_NUMBER, high: float = MOST_NUMBER, whole: bool = False) -> Check:
    """A finite number from `low` to `high`; where `whole`, without a fraction."""
    bounds = [f"at least {low:g}"] if low > -MOST_NUMBER else []
    bounds += [f"at most {high:g}"] if high < MOST_NUMBER else []
    words = " ".join(
        [f"a {'whole' if whole else 'finite'} number", *([f"of {' and '.join(bounds)}"] if bounds else [])]
    )

    def check(value: Any, key: str) -> str:
        kind = type(value)
        if (kind is float or kind is int) and low <= value <= high and not (whole and value != int(value)):
            return ""
        return fault(key, words, value)

    return check


def text(longest: int | None = None, empty: bool = True) -> Check:
    """A text of at most so many characters; where not `empty`, of one at least."""

    def check(value: Any, key: str) -> str:
        if not isinstance(value, str) or not (empty or value):
            return fault(key, "text" if empty else "text with at least one character", value)
        if longest is not None and len(value) > longest:
            return fault(key, f"text of at most {longest:,} characters", value)
        return ""

    return check


def flag() -> Check:
    """True or false."""
    return lambda value, key: "" if isinstance(value, bool) else fault(key, "true or false", value)


def one_of(choices: Collection[str]) -> Check:
    """One of these texts."""

    def check(value: Any, key: str) -> str:
        holds = isinstance(value, str) and value in choices
        return "" if holds else fault(key, f"one of {', '.join(choices)}", value)

    return check


def optional(inner: Check) -> Check:
    """Null, or what `inner` takes."""

    def check(value: Any, key: str) -> str:
        return "" if value is None else inner(value, key)

    return check


def either(*inner: Check) -> Check:
    """What any of these takes; the first says what is wrong."""

    def check(value: Any, key: str) -> str:
        first = inner[0](value, key)
        return "" if not first or any(not one(value, key) for one in inner[1:]) else first

    return check


def items(inner: Check) -> Check:
    """A list whose every element `inner` takes."""

    def check(value: Any, key: str) -> str:
        if not isinstance(value, list):
            return fault(key, "a list", value)
        # A key is put together only for the fault that it is told in: most of the time would go to it.
        return next((inner(one, f"{key}.{i}") for i, one in enumerate(value) if inner(one, "")), "")

    return check


def fields(known: Mapping[str, Check], required: Collection[str] = (), others: Check | None = None) -> Check:
    """An object: `known` keys are each checked, those `required` must be there, and `others` checks all others.

    Without `others`, keys that are not known are left alone: a later version may have written them.
    """

    def check(value: Any, key: str) -> str:
        if not isinstance(value, dict):
            return fault(key, "an object", value)
        if others is not None and len(value) > MOST_KEYS:
            return f"{key} must have at most {MOST_KEYS} keys; it has {len(value)}"
        prefix = f"{key}." if key else ""
        for name in required:
            if name not in value:
                return f"{prefix}{name} is missing"
        for name, one in value.items():
            inner = known.get(name, others)
            if inner and inner(one, ""):
                return inner(one, prefix + name)
        return ""

    return check


def fault(key: str, rule: str, value: Any) -> str:
    """Returns the broken rule in words: `reason must be text; it is 3`."""
    return f"{printable(key, 120) or 'it'} must be {rule}; it is {shown(value)}"
