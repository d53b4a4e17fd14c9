"""The simulation of packs against closed forms, and its cases: planned packs never take longer."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from study.plan.places import WHOLE
from tests.benchmarks.planning.packing import CASES, STEPS, Case, run, simulated_seconds


def affine(pack: Sequence[int]) -> float:
    """A step of 1 second, and a tenth for each adapter."""
    return 1.0 + 0.1 * len(pack)


def test_packs_one_after_the_other_and_side_by_side() -> None:
    shares = [WHOLE // 16] * 16
    assert simulated_seconds(shares, [10] * 16, 1, 16, affine) == pytest.approx(10 * 2.6)
    assert simulated_seconds(shares, [10] * 16, 1, 14, affine) == pytest.approx(10 * (2.4 + 1.2))
    assert simulated_seconds([WHOLE // 8] * 16, [10] * 16, 2, 16, affine) == pytest.approx(10 * 1.8)


def test_a_place_that_is_left_is_taken_at_once() -> None:
    """Of two places one is free after 2 steps: three trials of 2, 4 and 2 steps are never fewer than two."""
    assert simulated_seconds([WHOLE // 2] * 3, [2, 4, 2], 1, 2, affine) == pytest.approx(4 * 1.2)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_planned_packs_take_no_longer(case: Case) -> None:
    (_, before), (phase, now) = run(case, "h200")
    assert now <= before * (1 + 1e-9)
    assert phase.trials == len(case.configurations())
    assert sum(case.steps(64)) <= 64 * STEPS


def test_sixteen_trials_are_one_pack() -> None:
    (_, before), (phase, now) = run(CASES[0], "h200")
    assert (phase.places, phase.equal) == (16, True)
    assert now < 0.75 * before
