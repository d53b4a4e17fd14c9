"""Expected gains against brute force and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.pareto import hypervolume
from study.search.expected_hypervolume import expected_hypervolume, expected_improvement, staircase


@pytest.mark.parametrize("logarithmic", [False, True])
def test_expected_hypervolume_is_the_mean_of_many_draws(logarithmic: bool) -> None:
    """Tolerance: five standard errors of 4,000 draws."""
    reference, done = (1.2, 4.0), [(0.8, 1.0), (0.5, 3.0), (0.9, 2.0), (0.1, 5.0), (1.3, 0.5)]
    draws = np.random.default_rng(0).normal(-0.3, 0.5, 4000)
    draws = np.exp(draws) if logarithmic else draws
    before = hypervolume(done, reference)
    for memory in (0.5, 1.0, 2.5, 3.5, 4.5):
        found = expected_hypervolume(
            np.array([-0.3]), np.array([0.5]), np.array([memory]), staircase(done, reference), 4.0, logarithmic
        )
        gains = [hypervolume([*done, (float(one), memory)], reference) - before for one in draws]
        assert found[0] == pytest.approx(np.mean(gains), abs=5 * np.std(gains) / math.sqrt(len(gains)) + 1e-12)


def test_expected_improvement_has_its_limits() -> None:
    sure, mean = np.array([1e-9]), np.array([math.log(2.0)])
    assert expected_improvement(mean, sure, 3.0, True) == pytest.approx([1.0])
    assert expected_improvement(mean, sure, 1.0, True) == pytest.approx([0.0])
    assert expected_improvement(np.array([2.0]), sure, 3.0, False) == pytest.approx([1.0])
    assert expected_improvement(np.array([0.0]), np.array([1.0]), 0.0, False) == pytest.approx([0.398942], rel=1e-5)


def test_the_staircase_is_the_front_within_the_reference() -> None:
    assert staircase([], (9.0, 5.0)) == [(-math.inf, 9.0)]
    points = [(8.0, 1.0), (8.0, 2.0), (6.0, 3.0), (7.0, 4.0), (1.0, 5.0), (9.5, 0.5)]
    assert staircase(points, (9.0, 5.0)) == [(-math.inf, 9.0), (1.0, 8.0), (3.0, 6.0)]
