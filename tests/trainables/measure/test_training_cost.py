"""What a configuration costs alone: on which batches it is measured, for which configurations, and how steadily."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.footprint import Footprint
from tests.support.lora_cases import lora_config, new_member, random_rows
from tests.support.small_models import tiny_llama
from trainables.dataset.rows import Row
from trainables.measure import training_cost
from trainables.measure.training_cost import (
    TrainingCost,
    measure_training_cost,
    measuring_plan,
)
from trainables.packed.member import TrainingMember
from trainables.packed.packed_model import PackedModel
from trainables.settings import TrainingSettings

CPU = torch.device("cpu")
MIB = 2**20


def rows_of_lengths(lengths: list[int]) -> list[Row]:
    return [Row(tuple(range(length)), 1, None, str(number)) for number, length in enumerate(lengths)]


@given(st.lists(st.integers(2, 60), min_size=1, max_size=50), st.integers(1, 6), st.integers(1, 3))
def test_the_plan_ends_with_the_longest_rows(lengths: list[int], micro_batch_size: int, micro_batches: int) -> None:
    plan = measuring_plan(rows_of_lengths(lengths), micro_batch_size, micro_batches)
    assert len(plan) == 2  # a step to warm up, and the step that is measured
    numbers = [number for step in plan for micro in step for number in micro]
    assert all(0 <= number < len(lengths) for number in numbers)
    *typical, longest = plan[1]
    assert plan[0] == tuple(typical)
    assert sorted(lengths[number] for number in longest) == sorted(lengths)[-micro_batch_size:]
    assert len(set(longest)) == min(micro_batch_size, len(lengths))
    assert all(len(micro) == micro_batch_size for micro in typical)
    alike = {tuple(lengths[number] for number in micro) for micro in typical}
    assert 1 <= len(typical) == len(alike) <= micro_batches  # none repeats another


@settings(max_examples=30)
@given(st.lists(st.integers(2, 600), min_size=20, max_size=60), st.integers(1, 4))
def test_the_timed_rows_are_spread_over_the_lengths(lengths: list[int], micro_batch_size: int) -> None:
    """In closed form: the middles of equal parts of the rows by length."""
    *typical, _ = measuring_plan(rows_of_lengths(lengths), micro_batch_size)[1]
    parts, ordered = 2 * micro_batch_size, sorted(lengths)
    middles = [ordered[len(lengths) * (2 * k + 1) // (2 * parts)] for k in range(parts)]
    assert {tuple(lengths[number] for number in micro) for micro in typical} == {
        tuple(middles[0::2]),
        tuple(middles[1::2]),
    }


def test_a_footprint_is_shared_by_configurations_that_cost_the_same() -> None:
    one = lora_config()
    for same in (
        replace(one, learning_rate=0.5),
        replace(one, seed=7),
        replace(one, lora_alpha=1.5),
        replace(one, target_modules=one.target_modules[::-1]),
    ):
        assert Footprint.of(same) == Footprint.of(one)
    others = [one, replace(one, rank=5), lora_config(target_modules="q_v"), replace(one, lora_dropout=0.1)]
    assert len({Footprint.of(other) for other in others}) == 4
    assert Footprint.of(replace(one, lora_dropout=0.1)) == Footprint.of(replace(one, lora_dropout=0.3))


@pytest.fixture(scope="module")
def model() -> PackedModel:
    return PackedModel(tiny_llama().train())


def scratch(model: PackedModel, rows: list[Row], **changes) -> TrainingMember:
    member = new_member(model, lora_config(**changes), rows)
    return TrainingMember(member.adapter, TrainingSettings(), measuring_plan(rows, 1), half=False)


def test_a_cost_is_measured_on_the_plans_batches(model: PackedModel) -> None:
    rows = random_rows(20)
    member = scratch(model, rows)
    cost = measure_training_cost(model, member, rows, rows[0].tokens, 3)
    assert member.step == 2
    assert all(parameter.grad is None for parameter in member.adapter.parameters())
    assert cost.peak_memory_bytes > 64 * MIB
    assert (cost.peak_reserved_bytes, cost.peak_device_bytes) == (None, None)
    assert cost.joules_per_token is None
    assert min(cost.seconds_per_token, cost.seconds_per_update, cost.generated_tokens_per_second) > 0
    assert measure_training_cost(model, scratch(model, rows), rows, (), 0).generated_tokens_per_second is None


@pytest.mark.parametrize(
    ("seconds", "rounds", "mean"),
    [
        ((1.02, 1.0), 2, 1.01),  # nothing was compiled in the first
        ((9.0, 0.5, 0.52), 3, 0.51),
        ((0.4, 0.2, 0.3, 0.31), 4, 0.305),
        ((0.4, 0.5, 0.2, 0.5), 4, 0.5),  # they never agree: the last one stands
        ((9.0, 3.0, 3.0), 2, 3.0),  # and the patience is at its end
    ],
)
def test_speed_is_that_of_two_rounds_that_agree(
    model: PackedModel, monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, ...], rounds: int, mean: float
) -> None:
    """With a clock that only micro-batches move on: to within 10 %, or the last after about a second."""
    rows, now, left, real = rows_of_lengths([8] * 4), [0.0], list(seconds), training_cost.micro_step

    def step(*arguments: Any) -> torch.Tensor:
        now[0] += left.pop(0) if left else 100.0
        return real(*arguments)

    monkeypatch.setattr(training_cost, "micro_step", step)
    monkeypatch.setattr(training_cost, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    member = scratch(model, rows)
    cost = measure_training_cost(model, member, rows, (), 0)
    assert cost.seconds_per_token == pytest.approx(mean / 8)
    assert len(seconds) - len(left) - (1 if rounds < len(seconds) else 0) == rounds


def test_the_adapters_own_bytes_are_in_its_peak(model: PackedModel) -> None:
    """Rank 1024 over rank 1: at least its weights, gradients and two moments, and at most 4 of them more.

    (Low-rank activations come with the rank too; 4 MiB are the measurement's own error.)
    """
    rows = random_rows(20)
    peaks = []
    for rank in (1, 1024):
        member = scratch(model, rows, rank=rank)
        parameters = member.adapter.trainable_parameters
        peaks.append(measure_training_cost(model, member, rows, (), 0).peak_memory_bytes)
        del member
    more = 4 * parameters * 1023 / 1024
    assert 4 * more - 4 * MIB < peaks[1] - peaks[0] < 8 * more + 4 * MIB


def test_how_often_it_is_measured_changes_little(model: PackedModel) -> None:
    """Four times the same configuration, another in between: within 1 %."""
    rows = random_rows(20)
    peaks = []
    for _ in range(4):
        peaks.append(measure_training_cost(model, scratch(model, rows), rows, (), 0).peak_memory_bytes)
        measure_training_cost(model, scratch(model, rows, rank=512), rows, (), 0)
    assert max(peaks) <= 1.01 * min(peaks)


def test_seconds_per_epoch_in_closed_form() -> None:
    cost = TrainingCost(1, None, None, 0.01, 0.5, None, None)
    assert cost.seconds_per_epoch(tokens=1000, steps=4) == 12.0
