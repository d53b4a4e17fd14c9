"""Schedules and the loss scaler: closed forms."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.packed.optimization import GROWTH_STEPS, LossScaler, evaluation_steps, learning_rate_at
from trainables.settings import RungSettings, TrainingSettings


def test_cosine_with_warmup_has_its_closed_form():
    training = TrainingSettings(schedule="cosine", warmup_ratio=0.1)
    rates = [learning_rate_at(step, 20, 1.0, training) for step in range(20)]
    assert rates[:2] == [0.5, 1.0]
    assert rates[2] == 1.0
    assert rates[11] == pytest.approx(0.5)  # half of the eighteen steps after the warm-up
    assert rates == sorted(rates[:2]) + sorted(rates[2:], reverse=True)


def test_linear_and_constant():
    linear = TrainingSettings(schedule="linear", warmup_ratio=0.0)
    assert [learning_rate_at(step, 4, 2.0, linear) for step in range(4)] == [2.0, 1.5, 1.0, 0.5]
    constant = TrainingSettings(schedule="constant", warmup_ratio=0.0)
    assert {learning_rate_at(step, 4, 2.0, constant) for step in range(4)} == {2.0}


@given(st.integers(1, 500), st.floats(0, 1), st.sampled_from(["cosine", "linear", "constant"]))
def test_rates_are_positive_and_at_most_the_peak(total, warmup, schedule):
    training = TrainingSettings(schedule=schedule, warmup_ratio=warmup)
    for step in range(total):
        assert 0 < learning_rate_at(step, total, 1e-3, training) <= 1e-3 * (1 + 1e-12)


def test_the_scaler_halves_on_overflow_and_doubles_after_good_steps():
    scaler = LossScaler.for_half()
    assert scaler.after(finite=False).scale == scaler.scale / 2
    for _ in range(GROWTH_STEPS):
        scaler = scaler.after(finite=True)
    assert scaler == LossScaler(LossScaler.for_half().scale * 2)


def test_without_scaling_nothing_changes_and_overflow_has_no_remedy():
    scaler = LossScaler()
    assert scaler.after(finite=False) == scaler.after(finite=True) == scaler
    assert scaler.at_floor


def test_the_scaler_reaches_its_floor():
    scaler = LossScaler.for_half()
    for _ in range(int(math.log2(scaler.scale)) + 3):
        scaler = scaler.after(finite=False)
    assert scaler.at_floor
    assert scaler.scale > 1


@given(st.integers(0, 300), st.integers(1, 20))
def test_evaluations_end_with_the_training(total, evaluations):
    steps = evaluation_steps(total, evaluations)
    assert steps[-1] == total
    assert len(steps) == max(1, min(total, evaluations))
    assert list(steps) == sorted(set(steps))


def test_the_evaluation_split_is_measured_at_rungs_too():
    assert evaluation_steps(28, 4, rungs=(2, 7, 11)) == (2, 7, 11, 14, 21, 28)
    assert evaluation_steps(28, 1, rungs=RungSettings((1 / 16, 3 / 16, 3 / 8)).steps(28)) == (2, 6, 11, 28)
