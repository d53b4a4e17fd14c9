"""Defines rules for single values of a configuration: whole numbers, numbers, names and lists, within bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeGuard

Rule = Callable[[Any], str | None]  # what the value must be, where it is not; None where it is


def whole(least: int, most: int) -> Rule:
    """Returns the rule of a whole number within bounds; true, false and 64.0 are none."""
    rule = f"must be a whole number from {least:,} to {most:,}"
    return lambda value: None if is_whole(value) and least <= value <= most else rule


def number(least: float, most: float) -> Rule:
    """Returns the rule of a finite number within bounds."""
    rule = f"must be {least:g}" if least == most else f"must be a number from {least:g} to {most:g}"
    return lambda value: None if is_number(value) and least <= value <= most else rule


def decimal(least: float, most: float) -> Rule:
    """Returns the rule of a number with a decimal point, as transformers' classes ask for in places: 30.0, not 30."""
    rule = f"must be a number from {least:g} to {most:g} with a decimal point, such as 30.0"
    return lambda value: None if isinstance(value, float) and least <= value <= most else rule


def never(why: str) -> Rule:
    """Returns the rule of a switch that must be off."""
    return lambda value: None if value is False else f"must be false: {why}"


def nothing(why: str) -> Rule:
    """Returns the rule of a key that must be null."""
    return lambda value: None if value is None else f"must be null: {why}"


def truth() -> Rule:
    """Returns the rule of true or false."""
    return lambda value: None if isinstance(value, bool) else "must be true or false"


def name_of(names: Collection[str]) -> Rule:
    """Returns the rule of a text that is one of several."""
    rule = f"must be one of {', '.join(names)}"
    return lambda value: None if isinstance(value, str) and value in names else rule


def text() -> Rule:
    """Returns the rule of a text of at most 10,000 characters."""
    return lambda value: None if isinstance(value, str) and len(value) <= 10_000 else "must be a text"


def mapping() -> Rule:
    """Returns the rule of a mapping of names to values."""
    return lambda value: None if isinstance(value, dict) else "must be a mapping of names to values"


def list_of(rule: Rule, most: int) -> Rule:
    """Returns the rule of a list of at most `most` values, each by `rule`."""

    def check(value: Any) -> str | None:
        if not isinstance(value, list) or len(value) > most:
            return f"must be a list of at most {most} values"
        found = next((broken for one in value if (broken := rule(one))), None)
        return found and f"must be a list, in which each value {found}"

    return check


def or_null(rule: Rule) -> Rule:
    """Returns the rule that null satisfies too."""

    def check(value: Any) -> str | None:
        found = None if value is None else rule(value)
        return found and f"{found}, or null"

    return check


def either(*rules: Rule) -> Rule:
    """Returns the rule that a value satisfies by one of several."""

    def check(value: Any) -> str | None:
        found = [rule(value) for rule in rules]
        return None if None in found else ", or ".join(_texts(found))

    return check


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether the value is an integer, and no boolean."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether the value is an integer or a finite float, and no boolean."""
    return is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _texts(found: Iterable[str | None]) -> Iterable[str]:
    return (rule for rule in found if rule is not None)
