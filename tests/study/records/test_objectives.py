"""Objectives: known metrics with one better direction each, and values that are all there or not at all."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.records.objectives import METRICS, Objective, objective_values
from study.records.record import MEASUREMENTS

FINITE = st.floats(allow_nan=False, allow_infinity=False)
OBJECTIVES = (
    Objective("perplexity", "minimize", 12.0),
    Objective("train_tokens_per_second", "maximize", 100.0),
    Objective("peak_memory_bytes", "minimize", 14.56 * 2**30),
)
METRIC_NAMES = [objective.metric for objective in OBJECTIVES]


def test_every_metric_is_a_measurement_under_its_own_name() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name
        assert name in MEASUREMENTS
        assert metric.label
        assert metric.direction in ("minimize", "maximize")
    assert len({metric.label for metric in METRICS.values()}) == len(METRICS)


def test_unit_and_label_are_the_metrics_own() -> None:
    assert (OBJECTIVES[2].unit, OBJECTIVES[2].label) == ("bytes", "Peak memory")
    assert (OBJECTIVES[0].unit, OBJECTIVES[0].label) == ("", "Perplexity")


@given(FINITE, FINITE)
def test_less_is_better_in_the_core(one: float, other: float) -> None:
    least, most = OBJECTIVES[0], OBJECTIVES[1]
    assert (least.to_minimize(one) < least.to_minimize(other)) == (one < other)
    assert (most.to_minimize(one) < most.to_minimize(other)) == (one > other)


@given(st.tuples(FINITE, FINITE, FINITE))
def test_values_come_in_the_objectives_order_and_their_own_directions(values: tuple[float, ...]) -> None:
    measurements = {"energy_joules": math.nan, **dict(reversed(list(zip(METRIC_NAMES, values, strict=True))))}
    assert objective_values(measurements, OBJECTIVES) == values


def test_whole_numbers_become_floats() -> None:
    found = objective_values(dict.fromkeys(METRIC_NAMES, 7), OBJECTIVES)
    assert found == (7.0, 7.0, 7.0)
    assert all(isinstance(value, float) for value in found)


def test_zero_is_a_value() -> None:
    assert objective_values(dict.fromkeys(METRIC_NAMES, 0), OBJECTIVES) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("missing", METRIC_NAMES)
@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_one_value_that_is_missing_or_not_finite_leaves_none(missing: str, value: float | None) -> None:
    assert objective_values({**dict.fromkeys(METRIC_NAMES, 1.0), missing: value}, OBJECTIVES) is None


def test_an_absent_key_leaves_none() -> None:
    assert objective_values({"perplexity": 1.0, "peak_memory_bytes": 1.0}, OBJECTIVES) is None
