"""The field of a rung, from losses that arrive in any order."""

from __future__ import annotations

import math

import pytest

from study.search.front_ranking import Contender
from study.search.learning_curves import LearningCurves


def test_a_field_has_the_mean_of_each_configuration_s_seeds() -> None:
    curves = LearningCurves()
    for trial, loss, configuration in (("a", 3.0, "one"), ("b", 5.0, "one"), ("c", 4.0, "two")):
        curves.add(trial, 2, loss, {"one": 20.0, "two": 10.0}[configuration], configuration)
    assert curves.field(2, 4) == [Contender("two", 4.0, 10.0), Contender("one", 4.0, 20.0)]
    assert curves.field(4, math.inf) == []


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_and_an_unknown_memory_are_left_out(loss: float) -> None:
    curves = LearningCurves()
    curves.add("a", 2, loss, 10.0, None)
    curves.add("b", 2, 1.0, None, None)
    assert curves.field(2, 4) == []
    assert curves.between(2, 4) == {"a": math.inf, "b": 1.0}


def test_of_a_rung_the_first_step_counts_and_of_a_step_the_last_loss() -> None:
    curves = LearningCurves()
    for step, loss in ((3, 7.0), (2, 9.0), (5, 1.0), (2, 8.0)):
        curves.add("a", step, loss, 10.0, None)
    assert curves.between(2, 5) == {"a": 8.0}
    assert curves.between(4, math.inf) == {"a": 1.0}
