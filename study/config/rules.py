"""The rules for single values of a study file: in words, as a check, and with a remedy."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from study.errors import shown
from study.records.units import exact_bytes, parse_bytes

LONGEST_TEXT = 1000
TRUE_WORDS, FALSE_WORDS = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True)
class Rule:
    """A rule for one value: `text` words it, `remedy` returns what was probably meant, or an empty text."""

    text: str
    holds: Callable[[Any], bool]
    example: str = ""  # as YAML; if empty, the key's default is the example
    convert: Callable[[Any], Any] = lambda value: value
    remedy: Callable[[Any], str] = lambda value: ""


def whole(low: int, high: int, example: str = "") -> Rule:
    """An integer from `low` to `high`, both included; neither a boolean nor 3.0."""
    return Rule(
        f"must be a whole number from {low:,} to {high:,}",
        lambda value: is_whole(value) and low <= value <= high,
        example,
    )


def number(low: int, high: int, above: bool = False, below: bool = False, example: str = "") -> Rule:
    """A finite number from `low` to `high`; `above` and `below` exclude the ends."""
    start = f"above {low}" if above else f"from {low}"
    end = f", under {high:,}" if below else f", at most {high:,}" if above else f" to {high:,}"
    return Rule(
        f"must be a number {start}{end}",
        lambda value: (
            is_number(value) and (low < value if above else low <= value) and (value < high if below else value <= high)
        ),
        example,
        convert=float,
    )


def text(longest: int = LONGEST_TEXT, example: str = "") -> Rule:
    """Text of at most `longest` characters that is not blank."""
    return Rule(
        f"must be text of 1 to {longest:,} characters",
        lambda value: isinstance(value, str) and 0 < len(value) <= longest and not value.isspace(),
        example,
        remedy=_text_remedy,
    )


def flag() -> Rule:
    """A boolean."""
    return Rule("must be true or false", lambda value: isinstance(value, bool), remedy=_flag_remedy)


def one_of(names: Collection[str], example: str = "") -> Rule:
    """One of the names."""
    return Rule(
        f"must be one of {', '.join(names)}",
        lambda value: isinstance(value, str) and value in names,
        example,
        remedy=lambda value: _name_remedy(value, names),
    )


def size() -> Rule:
    """A byte quantity with its unit, such as `14.56 GiB`; becomes a whole number of bytes."""
    return Rule(
        "must be a byte quantity with its unit, from 1 B to 1,048,576 TiB",
        lambda value: isinstance(value, str) and _size_or_none(value) is not None,
        "14.56 GiB",
        convert=parse_bytes,
        remedy=_size_remedy,
    )


def list_of(low: int, high: int, of: str, example: str) -> Rule:
    """A list of `low` to `high` values; `of` is what to call them."""
    return Rule(
        f"must be a list of {low} to {high:,} {of}",
        lambda value: isinstance(value, list) and low <= len(value) <= high,
        example,
    )


def nullable(rule: Rule) -> Rule:
    """The rule, or null."""
    return Rule(
        f"{rule.text}, or null",
        lambda value: value is None or rule.holds(value),
        rule.example,
        convert=lambda value: None if value is None else rule.convert(value),
        remedy=rule.remedy,
    )


def is_whole(value: object) -> bool:
    """Whether the value is an integer, and not a boolean."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether the value is a finite number, and not a boolean."""
    return is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _text_remedy(value: Any) -> str:
    if isinstance(value, bool | int | float):
        return f'Put it into quotes: "{shown(value)}".'
    return ""


def _flag_remedy(value: Any) -> str:
    word = str(value).lower()
    if word in TRUE_WORDS:
        return "Write `true`."
    return "Write `false`." if word in FALSE_WORDS else ""


def _name_remedy(value: Any, names: Collection[str]) -> str:
    if value is None and "none" in names:
        return "Did you mean `none`?"
    if not isinstance(value, str):
        return ""
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(value.lower(), by_lower, n=1)
    near = near or [name for name in by_lower if value and name.startswith(value.lower())]
    return f"Did you mean `{by_lower[near[0]]}`?" if near else ""


def _size_or_none(value: str) -> int | None:
    try:
        return parse_bytes(value)
    except ValueError:
        return None


def _size_remedy(value: Any) -> str:
    if is_whole(value) and 1 <= value <= 2**60:
        return f"Write `{exact_bytes(value)}` for bytes, or for example `14.56 GiB`."
    return ""
