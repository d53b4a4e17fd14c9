"""Checks of JSON values: what each takes, and how it says what is wrong."""

from __future__ import annotations

import math
from typing import Any

import pytest

from study.json_checks import Check, either, fields, items, number, one_of, optional, text

OBJECT = fields({"a": number(), "b": items(text())}, ("a",))


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (number(), -1e308),
        (number(0, 9, whole=True), 9.0),
        (number(0), 2**70),
        (text(3), "abc"),
        (one_of(("a", "b")), "b"),
        (optional(number()), None),
        (items(number()), []),
        (OBJECT, {"a": 1, "b": ["x"], "later": object}),
        (fields({}, others=number()), {"x": 1}),
        (either(text(), number()), 3),
    ],
)
def test_what_holds_says_nothing(check: Check, value: Any) -> None:
    assert check(value, "key") == ""


@pytest.mark.parametrize(
    ("check", "value", "words"),
    [
        (number(), True, "key must be a finite number; it is true"),
        (number(), math.inf, "key must be a finite number; it is Infinity"),
        (number(), 10**400, "key must be a finite number; it is 1000"),
        (number(0, 9, whole=True), 9.5, "key must be a whole number of at least 0 and at most 9; it is 9.5"),
        (text(empty=False), "", 'key must be text with at least one character; it is ""'),
        (text(3), "abcd", "key must be text of at most 3 characters"),
        (one_of(("a", "b")), [], "key must be one of a, b; it is []"),
        (items(number()), [1, "x"], 'key.1 must be a finite number; it is "x"'),
        (items(number()), {}, "key must be a list; it is {}"),
        (OBJECT, {"b": []}, "key.a is missing"),
        (OBJECT, {"a": 1, "b": [None]}, "key.b.0 must be text; it is null"),
        (OBJECT, [], "key must be an object; it is []"),
        (fields({}, others=number()), {str(i): i for i in range(201)}, "key must have at most 200 keys; it has 201"),
        (either(text(), number()), None, "key must be text; it is null"),
    ],
)
def test_what_does_not_hold_says_key_rule_and_value(check: Check, value: Any, words: str) -> None:
    assert check(value, "key").startswith(words)
