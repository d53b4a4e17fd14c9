"""The bootstrap against enumeration of all draws, the normal limit, and what is not a number."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.statistics.bootstrap import (
    Interval,
    draws,
    mean_interval,
    percentile_interval,
    perplexities,
)


def test_draws_are_draws_with_replacement() -> None:
    weights = draws(7, resamples=500, seed=3)
    assert weights.shape == (500, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert (weights == draws(7, resamples=500, seed=3)).all()
    assert (weights != draws(7, resamples=500, seed=4)).any()
    # A document is missing from a resample with probability (1 - 1/7)^7 = 0.34; 3500 cells: 4 sigma is 0.033.
    assert (weights == 0).mean() == pytest.approx((6 / 7) ** 7, abs=0.033)


def test_perplexity_sums_nats_and_divides_once() -> None:
    # A mean of the documents' own perplexities would be (e^2 + e^1) / 2.
    assert perplexities([2.0, 9.0], [1, 9], [1, 1])[0, 0] == pytest.approx(math.exp(1.1), rel=1e-12)


def test_two_documents_take_every_value_with_its_probability() -> None:
    nats, tokens = (2.0, 12.0), (1, 3)
    possible = {
        round(math.exp((nats[i] + nats[j]) / (tokens[i] + tokens[j])), 9)
        for i, j in itertools.product((0, 1), repeat=2)
    }
    samples = perplexities(nats, tokens, draws(2, 4000, seed=0))[:, 0]
    values, counts = np.unique(np.round(samples, 9), return_counts=True)
    assert set(values) == possible
    middle = round(math.exp(14 / 4), 9)  # one of each: probability 1/2; 4 sigma of 4000 draws is 0.032
    assert counts[list(values).index(middle)] / 4000 == pytest.approx(0.5, abs=0.032)


def test_the_same_documents_are_drawn_for_all_trials() -> None:
    # The second trial is better by half a nat a token everywhere: so it is in every resample.
    nats, tokens = np.array([4.0, 7.0, 1.0, 30.0]), np.array([2, 3, 1, 9])
    samples = perplexities([nats, nats - 0.5 * tokens], tokens, draws(4, 300))
    assert np.log(samples[:, 0] / samples[:, 1]) == pytest.approx(np.full(300, 0.5), rel=1e-9)


def test_the_interval_has_the_normal_limit() -> None:
    generator = np.random.default_rng(0)
    tokens = np.full(400, 10)
    nats = tokens * generator.normal(2.0, 0.3, size=400)
    mean, error = float(np.mean(nats / tokens)), np.std(nats / tokens) / math.sqrt(400)
    found = percentile_interval(perplexities(nats, tokens, draws(400, 4000)), math.exp(mean))
    assert math.log(found.low) == pytest.approx(mean - 1.96 * error, abs=0.15 * error)
    assert math.log(found.high) == pytest.approx(mean + 1.96 * error, abs=0.15 * error)


def test_one_and_equal_documents_do_not_vary() -> None:
    for nats, tokens in (([6.0], [3]), ([6.0, 6.0, 4.0], [3, 3, 2])):
        samples = perplexities(nats, tokens, draws(len(tokens), 200))
        assert samples == pytest.approx(np.full((200, 1), math.exp(2)), rel=1e-12)


def test_what_is_not_a_number_shows_only_where_it_is_drawn() -> None:
    weights = np.array([[2, 0], [0, 2]])
    assert perplexities([2.0, math.inf], [1, 1], weights)[:, 0].tolist() == [math.exp(2.0), math.inf]
    found = perplexities([2.0, math.nan], [1, 1], weights)[:, 0]
    assert found[0] == math.exp(2.0)
    assert math.isnan(found[1])


def test_resamples_that_are_not_finite_leave_what_bounds_there_are() -> None:
    weights = draws(2, 200)
    infinite = percentile_interval(perplexities([1.0, math.inf], [1, 1], weights), math.inf)
    assert (infinite.low, infinite.value, infinite.high) == (math.e, math.inf, math.inf)
    unknown = percentile_interval(perplexities([1.0, math.nan], [1, 1], weights), math.nan)
    assert math.isnan(unknown.low)
    assert math.isnan(unknown.high)


def test_more_nats_than_a_float_holds_are_infinite() -> None:
    assert perplexities([2000.0], [1], [1])[0, 0] == math.inf


@pytest.mark.parametrize(("nats", "tokens"), [([1.0], [0]), ([1.0, 2.0], [1]), ([], []), ([1.0], [[1]])])
def test_tokens_must_be_positive_and_fit(nats: list[float], tokens: list[int]) -> None:
    with pytest.raises(ValueError, match="tokens"):
        perplexities(nats, tokens, np.ones(2))


def test_mean_interval_of_none_one_and_infinite_values() -> None:
    assert mean_interval([]) is None
    assert mean_interval([3.0], resamples=50) == Interval(3.0, 3.0, 3.0)
    found = mean_interval([1.0, math.inf])
    assert found is not None
    assert math.isnan(found.low)
    assert found.value == math.inf


def test_mean_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        found = mean_interval(generator.normal(size=60), resamples=400, seed=trial, level=0.9)
        assert found is not None
        hits += found.low <= 0 <= found.high
    assert hits / 200 == pytest.approx(0.89, abs=0.07)  # three sigma of 200 trials is 0.064


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.sampled_from([0.5, 0.9, 0.95]))
def test_percentiles_are_resamples_and_hold_the_level(samples: list[float], level: float) -> None:
    found = percentile_interval(samples, 0.0, level)
    assert found.low in samples
    assert found.high in samples
    inside = sum(found.low <= one <= found.high for one in samples)
    assert inside >= level * len(samples) - 1e-9


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0, math.nan])
def test_the_level_must_be_between_0_and_1(level: float) -> None:
    with pytest.raises(ValueError, match="level"):
        percentile_interval([1.0], 1.0, level)
    with pytest.raises(ValueError, match="resamples"):
        percentile_interval([], 1.0, 0.5)


@pytest.mark.parametrize(("count", "resamples"), [(0, 1), (1, 0)])
def test_there_must_be_something_to_draw(count: int, resamples: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        draws(count, resamples)
