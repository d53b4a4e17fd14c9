"""Timings are repeated until they agree, and no longer."""

from __future__ import annotations

import random
import statistics
from itertools import product

import pytest

from trainables.measure.agreement import MOST_DOUBT, _sure_from_place, agree, median_is_sure, until_agreed


@pytest.mark.parametrize(
    ("timings", "patience", "returned", "taken"),
    [
        ([1.0, 1.0], 9.0, (1.0, 1.0), 2),
        ([1.0, 0.91], 0.0, (1.0, 0.91), 2),
        ([1.0, 0.89, 0.85], 9.0, (0.89, 0.85), 3),
        ([1.0, 0.5], 0.5, (0.5,), 2),
        ([1.0, 0.5, 0.6, 0.7], 1.7, (0.7,), 4),
    ],
)
def test_two_in_a_row_that_agree_are_returned_or_the_last_one(
    timings: list[float], patience: float, returned: tuple[float, ...], taken: int
) -> None:
    left = list(timings)
    first = left.pop(0)
    assert until_agreed(first, lambda: left.pop(0), float, patience) == returned
    assert len(timings) - len(left) == taken


def test_timings_agree_to_within_10_percent_of_the_larger() -> None:
    assert agree(0.901, 1.0)
    assert agree(1.0, 0.901)
    assert not agree(0.899, 1.0)
    assert agree(0.0, 0.0)


def test_fewer_than_five_timings_are_never_sure() -> None:
    assert not median_is_sure([])
    assert not median_is_sure([1.0] * 4)
    assert median_is_sure([1.0] * 5)
    assert median_is_sure([0.97, 1.0, 1.0, 1.02, 1.06])
    assert not median_is_sure([0.97, 1.0, 1.0, 1.02, 1.08])
    assert not median_is_sure([1.0] * 6 + [9.0])  # of seven, the outermost must be near
    assert median_is_sure([1.0] * 7 + [9.0])  # of eight, the outermost but one


@pytest.mark.parametrize("count", range(1, 16))
def test_the_interval_holds_the_median_as_often_as_is_said(count: int) -> None:
    """Brute force over which timings lie above the median: no place further in is sure enough."""

    def doubt(place: int) -> float:
        missed = sum(1 for above in product((0, 1), repeat=count) if not place < sum(above) < count - place)
        return missed / 2**count

    place = _sure_from_place(count)
    assert place < 0 or doubt(place) <= MOST_DOUBT
    assert doubt(place + 1) > MOST_DOUBT


@pytest.mark.parametrize(("noise", "within"), [(0.01, 0.02), (0.03, 0.06), (0.08, 0.15)])
def test_a_median_that_is_called_sure_is_near(noise: float, within: float) -> None:
    """Of 500 series with normal noise, stopped as soon as they are sure: 99 %."""
    draw, errors = random.Random(0), []
    for _ in range(500):
        timings: list[float] = []
        while not median_is_sure(timings):
            timings.append(draw.gauss(1.0, noise))
        errors.append(abs(statistics.median(timings) - 1.0))
    assert sum(error <= within for error in errors) >= 0.99 * len(errors)
