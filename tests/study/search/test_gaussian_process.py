"""The process against closed forms: two points, its limits, and a function that it must learn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from study.search.gaussian_process import (
    MOST_TO_FIT,
    GaussianProcess,
    _likeliest,
    _squared_differences,
    evenly_spread,
    log_posterior,
    normal_cdf,
)


def test_one_point_is_told_back_and_far_away_the_mean_holds() -> None:
    process = GaussianProcess.fit(np.array([[0.5]]), np.array([3.0]))
    mean, spread = process.predict(np.array([[0.5], [40.0]]))
    assert mean == pytest.approx([3.0, 3.0])
    assert spread[0] < spread[1] == pytest.approx(math.sqrt(process.signal), rel=1e-3)


def test_the_posterior_is_that_of_the_textbook() -> None:
    """Equations 2.23 and 2.24 by the inverse, which the implementation does without; tolerance: rounding."""
    generator = np.random.default_rng(0)
    points, values, others = generator.random((6, 2)), generator.normal(size=6), generator.random((4, 2))
    process = GaussianProcess.fit(points, values)

    def kernel(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        distance = np.array([[math.sqrt(5 * sum(((a - b) / process.lengths) ** 2)) for b in other] for a in one])
        return process.signal * (1 + distance + distance**2 / 3) * np.exp(-distance)

    inverse = np.linalg.inv(kernel(points, points) + (process.noise + 1e-9) * np.eye(6))
    standardized = (values - values.mean()) / values.std()
    mean = values.mean() + values.std() * kernel(others, points) @ inverse @ standardized
    variance = np.diag(kernel(others, others) - kernel(others, points) @ inverse @ kernel(points, others))
    found_mean, found_spread = process.predict(others)
    assert found_mean == pytest.approx(mean, rel=1e-6)
    assert found_spread == pytest.approx(values.std() * np.sqrt(variance), rel=1e-5)


def test_hyperparameters_are_likelier_than_their_neighbours() -> None:
    generator = np.random.default_rng(1)
    points = generator.random((12, 2))
    values = np.sin(4 * points[:, 0])
    process = GaussianProcess.fit(points, values)
    assert process.lengths[0] < process.lengths[1]  # the second feature has no effect
    differences = (points[:, None] - points[None]) ** 2
    theta = np.log([*process.lengths, process.signal, process.noise])
    standardized = (values - values.mean()) / values.std()
    best = log_posterior(differences, standardized, theta)
    for place in range(4):
        for step in (-0.3, 0.3):
            assert log_posterior(differences, standardized, theta + step * np.eye(4)[place]) <= best + 1e-6


def test_it_learns_a_smooth_function() -> None:
    generator = np.random.default_rng(2)
    points, others = generator.random((30, 3)), generator.random((100, 3))

    def function(x: np.ndarray) -> np.ndarray:
        return np.sin(3 * x[:, 0]) + x[:, 1] ** 2

    mean, spread = GaussianProcess.fit(points, function(points)).predict(others)
    assert np.abs(mean - function(others)).mean() < 0.1 * function(others).std()
    assert np.mean(np.abs(mean - function(others)) < 3 * spread) > 0.95


def test_of_many_points_all_are_known_and_some_are_fitted_on() -> None:
    """Hyperparameters are those of the spread points alone, equal; a smooth function of 400 is met to 0.05."""
    generator = np.random.default_rng(5)
    points, tried = generator.random((400, 2)), generator.random((50, 2))
    values = np.sin(6 * points[:, 0]) + points[:, 1] ** 2
    process = GaussianProcess.fit(points, values)
    standardized = (values - values.mean()) / values.std()
    some = evenly_spread(400, MOST_TO_FIT)
    fitted = _likeliest(_squared_differences(points[some], points[some]), standardized[some])
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


def test_what_it_believes_moves_no_expectation_and_makes_it_surer() -> None:
    generator = np.random.default_rng(3)
    points, running = generator.random((8, 2)), generator.random((3, 2))
    process = GaussianProcess.fit(points, generator.normal(size=8))
    believed = process.with_believed(running)
    assert believed.predict(running)[0] == pytest.approx(process.predict(running)[0], rel=1e-6)
    assert (believed.predict(running)[1] < process.predict(running)[1]).all()
    assert process.with_believed(np.empty((0, 2))) is process


def test_equal_values_are_no_error() -> None:
    process = GaussianProcess.fit(np.array([[0.0], [0.0], [1.0]]), np.array([2.0, 2.0, 2.0]))
    assert process.predict(np.array([[0.5]]))[0] == pytest.approx([2.0])


def test_the_normal_s_distribution() -> None:
    assert normal_cdf(np.array([-1.0, 0.0, 1.959964])) == pytest.approx([0.158655, 0.5, 0.975], abs=1e-6)
