"""Batch plans: closed forms, and that an epoch sees every row once. All comparisons are exact."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.dataset.batches import batch_plan, batches, of_like_length, planned_steps, steps_per_epoch
from trainables.settings import TrainingSettings

SIZES = st.tuples(st.integers(1, 60), st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**31 - 1))


def _training(micro: int, accumulation: int, epochs: float = 1.0, max_steps: int | None = None) -> TrainingSettings:
    return TrainingSettings(
        epochs=epochs, max_steps=max_steps, micro_batch_size=micro, gradient_accumulation_steps=accumulation
    )


@pytest.mark.parametrize(
    ("n_rows", "micro", "accumulation", "steps"), [(450, 1, 16, 29), (64, 2, 8, 4), (1, 4, 4, 1), (17, 4, 4, 2)]
)
def test_steps_per_epoch_rounds_up(n_rows: int, micro: int, accumulation: int, steps: int) -> None:
    assert steps_per_epoch(n_rows, micro, accumulation) == steps


@given(SIZES, st.integers(0, 5))
def test_an_epoch_sees_every_row_once(sizes: tuple[int, int, int, int], epoch: int) -> None:
    n_rows, micro, accumulation, seed = sizes
    steps = batches(n_rows, micro, accumulation, seed, epoch)
    assert sorted(row for step in steps for batch in step for row in batch) == list(range(n_rows))
    assert len(steps) == steps_per_epoch(n_rows, micro, accumulation)
    full = [step for step in steps if sum(map(len, step)) == micro * accumulation]
    assert len(full) >= len(steps) - 1
    assert all(0 < len(batch) <= micro for step in steps for batch in step)
    assert all(len(step) <= accumulation for step in steps)
    assert batches(n_rows, micro, accumulation, seed, epoch) == steps


def test_only_the_last_step_and_its_last_micro_batch_are_short() -> None:
    assert [[len(batch) for batch in step] for step in batches(7, 2, 2, seed=0, epoch=0)] == [[2, 2], [2, 1]]


def test_order_follows_seed_and_epoch() -> None:
    orders = {batches(30, 1, 4, seed, epoch) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


@given(SIZES, st.floats(0.01, 3.0), st.none() | st.integers(1, 40))
def test_the_plan_is_the_epochs_one_after_another(
    sizes: tuple[int, int, int, int], epochs: float, max_steps: int | None
) -> None:
    n_rows, micro, accumulation, seed = sizes
    plan = batch_plan(n_rows, _training(micro, accumulation, epochs, max_steps), seed)
    every = [step for epoch in range(4) for step in batches(n_rows, micro, accumulation, seed, epoch)]
    assert list(plan) == every[: len(plan)]
    assert len(plan) == planned_steps(n_rows, _training(micro, accumulation, epochs, max_steps))
    assert len(plan) <= (max_steps or math.inf)


@pytest.mark.parametrize(
    ("epochs", "max_steps", "steps"),
    [(1, None, 10), (0.5, None, 5), (0.1 + 0.2, None, 3), (0.25, None, 3), (0.001, None, 1), (2.05, None, 21),
     (2, 3, 3), (1, 99, 10)],
)  # fmt: skip
def test_epochs_may_be_fractions_and_max_steps_bounds_them(epochs: float, max_steps: int | None, steps: int) -> None:
    assert len(batch_plan(40, _training(2, 2, epochs, max_steps), seed=0)) == steps


@given(st.lists(st.integers(1, 500), min_size=1, max_size=40), st.integers(1, 5), st.integers(1, 5), st.integers(0, 9))
def test_parting_by_length_keeps_steps_and_sizes_and_pads_least(lengths, micro, accumulation, seed):
    """Sorted neighbours pad least of all partings into groups of one size."""
    plan = batches(len(lengths), micro, accumulation, seed, 0)
    parted = of_like_length(plan, lengths)
    assert [[len(group) for group in step] for step in parted] == [[len(group) for group in step] for step in plan]
    for before, after in zip(plan, parted, strict=True):
        rows = sorted(row for group in before for row in group)
        assert sorted(row for group in after for row in group) == rows
        padded = [sum(len(group) * max(lengths[row] for row in group) for group in step) for step in (before, after)]
        assert padded[1] <= padded[0] or len({len(group) for group in before}) > 1
        if micro > 1:
            sizes = [lengths[row] for group in after for row in group]
            assert sizes == sorted(sizes, reverse=True)


def test_steps_of_single_rows_stay_as_they_are():
    plan = batches(10, 1, 4, 3, 0)
    assert of_like_length(plan, list(range(10))) == plan
