"""The Gaussian process against NumPy's inverse, closed forms, a pattern search, and functions that it must learn."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.search.gaussian_process import (
    JITTER,
    LENGTH,
    LENGTH_SPREAD,
    MOST_TO_FIT,
    NOISE,
    NOISE_SPREAD,
    SIGNAL_SPREAD,
    Floats,
    GaussianProcess,
    evenly_spread,
    log_posterior,
    most_probable,
    squared_differences,
)


def kernel(one: Floats, other: Floats, lengths: Floats, signal: float) -> Floats:
    """Equation 4.17 of Rasmussen and Williams, point by point."""
    distance = np.array([[math.sqrt(5 * sum(((a - b) / lengths) ** 2)) for b in other] for a in one])
    return np.asarray(signal * (1 + distance + distance**2 / 3) * np.exp(-distance))


def problems(count: int) -> Iterator[tuple[Floats, Floats]]:
    """Points and standardized values: smooth and noisy, with features that have no effect, and equal points."""
    for seed in range(count):
        chance = np.random.default_rng(seed)
        points = chance.random((int(chance.integers(1, 40)), int(chance.integers(1, 6))))
        points = points.round() if seed % 5 == 1 else points
        values = np.sin(chance.uniform(1, 12) * points[:, 0]) * (seed % 5 != 4)
        values += chance.choice([0, 0.01, 0.3, 2]) * chance.normal(size=len(points))
        values = np.exp(3 * values) if seed % 5 == 3 else values
        yield points, (values - values.mean()) / (values.std() or 1.0)


# -- the posterior ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_posterior_is_that_of_the_textbook(seed: int) -> None:
    """Equations 2.23 and 2.24 by NumPy's inverse; tolerance: 1e-8."""
    generator = np.random.default_rng(seed)
    points, values, others = generator.random((9, 2)), generator.normal(size=9), generator.random((4, 2))
    process = GaussianProcess.fit(points, values)
    own = (process.lengths, process.signal)
    inverse = np.linalg.inv(kernel(points, points, *own) + (process.noise + JITTER * process.signal) * np.eye(9))
    across = kernel(others, points, *own)
    mean = values.mean() + values.std() * across @ inverse @ (values - values.mean()) / values.std()
    variance = np.diag(kernel(others, others, *own) - across @ inverse @ across.T)
    found_mean, found_spread = process.predict(others)
    assert found_mean == pytest.approx(mean, rel=1e-8, abs=1e-8)
    assert found_spread == pytest.approx(values.std() * np.sqrt(variance), rel=1e-8)


def test_one_point_is_predicted_exactly_and_far_away_the_mean_holds() -> None:
    process = GaussianProcess.fit(np.array([[0.5]]), np.array([3.0]))
    mean, spread = process.predict(np.array([[0.5], [40.0]]))
    assert mean == pytest.approx([3.0, 3.0])
    assert spread[0] < spread[1] == pytest.approx(math.sqrt(process.signal), rel=1e-3)


def test_what_it_believes_moves_no_expectation_and_makes_it_surer() -> None:
    generator = np.random.default_rng(3)
    points, running = generator.random((8, 2)), generator.random((3, 2))
    process = GaussianProcess.fit(points, generator.normal(size=8))
    believed = process.with_believed(running)
    assert believed.predict(running)[0] == pytest.approx(process.predict(running)[0], rel=1e-6)
    assert (believed.predict(running)[1] < process.predict(running)[1]).all()
    assert process.with_believed(np.empty((0, 2))) is process


# -- the hyperparameters ----------------------------------------------------------------------------------------------


def test_the_log_posterior_is_the_density_of_the_values_and_the_prior_of_the_hyperparameters() -> None:
    """By NumPy's determinant and inverse, up to the constant that two hyperparameters share; tolerance: 1e-8."""

    def density(points: Floats, values: Floats, theta: Floats) -> float:
        *lengths, signal, noise = np.exp(theta)
        covariance = kernel(points, points, np.asarray(lengths), signal)
        covariance += (noise + JITTER * signal) * np.eye(len(points))
        likelihood = -0.5 * values @ np.linalg.inv(covariance) @ values - 0.5 * np.linalg.slogdet(covariance)[1]
        medians = np.log([*([LENGTH] * len(lengths)), 1.0, NOISE])
        spreads = np.array([*([LENGTH_SPREAD] * len(lengths)), SIGNAL_SPREAD, NOISE_SPREAD])
        return float(likelihood - 0.5 * (((theta - medians) / spreads) ** 2).sum())

    for points, values in problems(10):
        theta, other = np.random.default_rng(0).normal(-1, 0.5, (2, points.shape[1] + 2))
        differences = squared_differences(points, points)
        found = log_posterior(differences, values, theta)[0] - log_posterior(differences, values, other)[0]
        assert found == pytest.approx(density(points, values, theta) - density(points, values, other), rel=1e-8)


def test_the_gradient_is_that_of_small_differences() -> None:
    """Central differences of 1e-5; tolerance: 1e-5 of the greatest slope."""
    for points, values in problems(10):
        differences = squared_differences(points, points)
        theta = np.random.default_rng(1).normal(-0.5, 0.5, points.shape[1] + 2)
        steps = 1e-5 * np.eye(len(theta))
        above = [log_posterior(differences, values, theta + step)[0] for step in steps]
        below = [log_posterior(differences, values, theta - step)[0] for step in steps]
        expected = (np.array(above) - np.array(below)) / 2e-5
        found = log_posterior(differences, values, theta)[1]
        assert found == pytest.approx(expected, abs=1e-5 * (1 + np.abs(expected).max()))


def pattern_search(differences: Floats, values: Floats) -> float:
    """The greatest log posterior that steps along single hyperparameters come to, from the prior's medians."""
    theta = np.log([*([LENGTH] * differences.shape[-1]), 1.0, NOISE])
    best = log_posterior(differences, values, theta)[0]
    for step in (0.8, 0.4, 0.2):
        improved = True
        while improved:
            improved = False
            for move in (*(step * np.eye(len(theta))), *(-step * np.eye(len(theta)))):
                found = log_posterior(differences, values, theta + move)[0]
                if found > best + 1e-6:
                    theta, best, improved = theta + move, found, True
    return best


def test_hyperparameters_are_as_probable_as_those_of_a_pattern_search() -> None:
    """On 60 problems; tolerance: 1e-6, relative."""
    for points, values in problems(60):
        differences = squared_differences(points, points)
        found = log_posterior(differences, values, most_probable(differences, values))[0]
        other = pattern_search(differences, values)
        assert found >= other - 1e-6 * max(1.0, abs(other))


def test_a_feature_without_effect_has_the_greater_length() -> None:
    points = np.random.default_rng(1).random((12, 2))
    process = GaussianProcess.fit(points, np.sin(4 * points[:, 0]))
    assert process.lengths[0] < process.lengths[1]


def test_of_many_points_all_are_known_and_some_are_fitted_on() -> None:
    """Hyperparameters are those of the spread points alone, equal; a smooth function of 400 is met to 0.05."""
    generator = np.random.default_rng(5)
    points, tried = generator.random((400, 2)), generator.random((50, 2))
    values = np.sin(6 * points[:, 0]) + points[:, 1] ** 2
    process = GaussianProcess.fit(points, values)
    standardized = (values - values.mean()) / values.std()
    some = evenly_spread(400, MOST_TO_FIT)
    fitted = most_probable(squared_differences(points[some], points[some]), standardized[some])
    assert np.log([*process.lengths, process.signal, process.noise]) == pytest.approx(fitted)
    assert len(process.points) == 400
    mean, _ = process.predict(tried)
    assert mean == pytest.approx(np.sin(6 * tried[:, 0]) + tried[:, 1] ** 2, abs=0.05)


@pytest.mark.parametrize(("count", "most"), [(1, 4), (4, 4), (5, 4), (1000, 7)])
def test_evenly_spread_places(count: int, most: int) -> None:
    places = evenly_spread(count, most)
    assert len(places) == min(count, most)
    assert (places[0], places[-1]) == (0, count - 1)
    gaps = np.diff(places)
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


# -- the whole --------------------------------------------------------------------------------------------------------


def test_it_learns_a_smooth_function() -> None:
    generator = np.random.default_rng(2)
    points, others = generator.random((30, 3)), generator.random((100, 3))

    def function(x: Floats) -> Floats:
        return np.asarray(np.sin(3 * x[:, 0]) + x[:, 1] ** 2)

    mean, spread = GaussianProcess.fit(points, function(points)).predict(others)
    assert np.abs(mean - function(others)).mean() < 0.1 * function(others).std()
    assert np.mean(np.abs(mean - function(others)) < 3 * spread) > 0.95


def test_equal_values_are_no_error() -> None:
    process = GaussianProcess.fit(np.array([[0.0], [0.0], [1.0]]), np.array([2.0, 2.0, 2.0]))
    assert process.predict(np.array([[0.5]]))[0] == pytest.approx([2.0])


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 12), st.integers(0, 4), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-9, 1.0, 1e9]))
def test_any_points_give_a_process_and_the_same_again(count: int, features: int, seed: int, scale: float) -> None:
    """Also equal points, no features, values of any size: predictions are finite, and equal when repeated."""
    generator = np.random.default_rng(seed)
    points = generator.choice([0.0, 0.5, 1.0], (count, features)) + 1e-6 * generator.random((count, features))
    values = scale * generator.choice([-1.0, 0.0, 1.0], count)
    tried = generator.random((3, features))
    mean, spread = GaussianProcess.fit(points, values).predict(tried)
    assert np.isfinite(mean).all()
    assert (spread > 0).all()
    again = GaussianProcess.fit(points, values).predict(tried)
    assert (again[0] == mean).all()
    assert (again[1] == spread).all()
