"""The kinds of parameters: what they can be, their middle, and target modules as one text."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.parameter_kinds import Choice, Fixed, Parameter, Range, RankTimes, join_modules, split_modules
from search_spaces.trial_config import MODULE_NAMES, TARGET_SETS


@pytest.mark.parametrize(
    ("values", "middle"),
    [
        (Range(0.0, 0.1), 0.05),
        (Range(1e-5, 1e-3, log=True), 1e-4),
        (Range(2, 64, log=True, integer=True), 11),  # sqrt(128) = 11.3
        (Range(8, 64, integer=True), 36),
        (Range(1, 2, integer=True), 2),
        (Range(5e-324, 1e-300, log=True), math.sqrt(5e-324) * math.sqrt(1e-300)),
    ],
)
def test_midpoint(values: Range, middle: float) -> None:
    assert values.midpoint() == pytest.approx(middle, rel=1e-12)
    assert isinstance(values.midpoint(), int) == values.integer


@given(st.floats(1e-300, 1e300), st.floats(1e-300, 1e300), st.booleans())
def test_midpoint_is_within(one: float, other: float, log: bool) -> None:
    low, high = min(one, other), max(one, other)
    assert low <= Range(low, high, log).midpoint() <= high


def test_values_are_all_that_is_known_beforehand() -> None:
    assert Parameter("rank", Fixed(8)).values() == (8,)
    assert Parameter("rank", Choice((8, 64))).values() == (8, 64)
    assert Parameter("rank", Range(2, 64, integer=True)).values() == (2, 64)
    assert Parameter("lora_alpha", RankTimes(2)).values() == ()
    assert Parameter("rank", Choice((8,)), (("precision", ("nf4",)),), 16).values() == (8, 16)


@pytest.mark.parametrize(
    ("parameter", "value", "possible"),
    [
        (Parameter("rank", Choice((8, 64))), 64, True),
        (Parameter("rank", Choice((8, 64))), 16, False),
        (Parameter("rank", Choice((8,)), (("precision", ("nf4",)),), 16), 16, True),
        (Parameter("rank", Range(2, 64, integer=True)), 33, True),
        (Parameter("rank", Range(2, 64, integer=True)), 65, False),
        (Parameter("lora_alpha", Range(2, 64, integer=True)), 2.5, False),
        (Parameter("lora_alpha", Range(2, 64, integer=True)), 4.0, True),
        (Parameter("lora_alpha", Range(2.0, 64.0)), 2.5, True),
        (Parameter("lora_alpha", Range(2.0, 64.0)), "2.5", False),
        (Parameter("lora_alpha", RankTimes(2)), 17, True),
    ],
)
def test_may_be(parameter: Parameter, value: float, possible: bool) -> None:
    assert parameter.may_be(value) is possible


def test_depends_on_conditions_and_rank() -> None:
    when = (("precision", ("nf4",)), ("rank", (8,)))
    assert Parameter("lora_dropout", Choice((0.1,)), when, 0.0).depends_on() == ("precision", "rank")
    assert Parameter("lora_alpha", RankTimes(2)).depends_on() == ("rank",)


def test_every_set_of_modules_has_one_text_in_any_order() -> None:
    texts = set()
    for size in range(1, len(MODULE_NAMES) + 1):
        for modules in itertools.combinations(MODULE_NAMES, size):
            text = join_modules(modules)
            assert text == join_modules(tuple(reversed(modules)))
            assert set(split_modules(text)) == set(modules)
            texts.add(text)
    assert len(texts) == 2 ** len(MODULE_NAMES) - 1
    assert set(TARGET_SETS) <= texts
