"""A training that diverges says what was not finite, and in which optimizer step; it is left as it was before it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.lora_cases import random_rows
from tests.support.trainables.packed_cases import make_member, make_model, state_of
from trainables.packed.member import TrainingMember, Update
from trainables.packed.not_finite import gradient_words, loss_words, not_finite
from trainables.packed.optimization import GROWTH_STEPS, INITIAL_SCALE, LossScaler

ROWS = random_rows(20, longest=12)
MODEL = make_model()
BAD = (math.nan, math.inf, -math.inf)


def member_with_gradients(scale: float = 1.0, steps: int = 30) -> TrainingMember:
    member = make_member(MODEL, ROWS, 0, steps=steps)
    member.scaler = LossScaler(scale)
    for parameter in member.adapter.parameters():
        parameter.grad = torch.ones_like(parameter)
    return member


def stepped(member: TrainingMember, loss: float = 14.91):
    update = Update(member, torch.tensor(loss))
    update.queue()
    return update.result(ROWS)


NAMES = list(member_with_gradients().adapter.named_parameters())


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, len(NAMES) - 1), min_size=1), st.sampled_from(BAD), st.integers(0, 3))
def test_it_names_the_tensors_whose_gradients_are_not_finite(places: set[int], bad: float, before: int) -> None:
    """The loss was finite: it is not what is named. Weights, moments and the place in the data stay bit for bit."""
    member = member_with_gradients()
    member.step = before
    weights = state_of(member)
    named = member.adapter.named_parameters()
    for place in places:
        named[NAMES[place]].grad.view(-1)[-1] = bad
    result = stepped(member)
    assert result.diverged
    assert result.step == before + 1
    assert "14.91" not in result.divergence
    first = NAMES[min(places)]
    words = first if len(places) == 1 else f"the first is {first}"
    assert f"{len(places)} of {len(NAMES)} adapter tensors ({words}) had gradients" in result.divergence
    assert "the gradient norm was " in result.divergence
    assert (member.step, member.train_tokens) == (before, 0)
    assert all(torch.equal(one, other) for one, other in zip(state_of(member), weights, strict=True))


def test_gradients_whose_squares_overflow_are_told_from_gradients_that_are_not_finite() -> None:
    member = member_with_gradients()
    member.adapter.parameters()[0].grad.fill_(3e38)
    assert stepped(member).divergence == (
        "the gradient norm was inf: every gradient was finite, the sum of their squares was not"
    )


@pytest.mark.parametrize("loss", BAD)
def test_a_loss_that_is_not_finite_is_named_with_the_weights_that_made_it(loss: float) -> None:
    member = member_with_gradients()
    assert stepped(member, loss).divergence == f"the loss was {loss}, over adapter weights that are all finite"
    member.adapter.named_parameters()[NAMES[3]].data[0, 0] = math.nan
    assert stepped(member, loss).divergence == (
        f"the loss was {loss}: 1 of {len(NAMES)} adapter tensors ({NAMES[3]}) held weights that are not finite"
    )


def overflow(member: TrainingMember):
    for parameter in member.adapter.parameters():
        parameter.grad = torch.full_like(parameter, math.inf)
    return stepped(member)


@pytest.mark.parametrize("scale", [2.0, 8.0, INITIAL_SCALE, 2.0**24])
def test_an_overflow_is_skipped_until_the_scale_is_smallest_and_then_it_is_divergence(scale: float) -> None:
    member, skips = member_with_gradients(scale), round(math.log2(scale)) - 1
    results = [overflow(member) for _ in range(skips + 1)]
    assert [(one.applied, one.diverged) for one in results] == [(False, False)] * skips + [(False, True)]
    last = results[-1]
    assert last.step == skips + 1
    assert f"at the smallest loss scale (2), after {skips} skipped steps" in last.divergence
    assert f"{len(NAMES)} of {len(NAMES)} adapter tensors (the first is {NAMES[0]})" in last.divergence


def test_a_training_whose_every_step_was_skipped_is_none() -> None:
    """It would end as complete with an adapter that is as it began."""
    member = member_with_gradients(INITIAL_SCALE, steps=3)
    assert [overflow(member).divergence for _ in range(2)] == [None, None]
    assert overflow(member).divergence == (
        "the gradients overflowed down to a loss scale of 1024, so that every one of its 3 steps was skipped"
    )


@pytest.mark.parametrize("good", [0, 1, 2])
def test_one_step_that_was_taken_makes_it_a_training(good: int) -> None:
    member = member_with_gradients(INITIAL_SCALE, steps=3)
    for step in range(3):
        for parameter in member.adapter.parameters():
            parameter.grad = torch.full_like(parameter, 1.0 if step == good else math.inf)
        assert not stepped(member).diverged


@given(st.lists(st.booleans(), max_size=60))
def test_the_scaler_counts_skips_one_after_the_other(finite: list[bool]) -> None:
    scaler = LossScaler.for_half()
    for one in finite:
        scaler = scaler.after(one)
    expected = next((number for number, one in enumerate(reversed(finite)) if one), len(finite))
    assert scaler.skipped_steps == expected
    assert scaler.good_steps < GROWTH_STEPS


@given(st.lists(st.sampled_from([0.0, 1e38, *BAD]), min_size=1, max_size=6))
def test_every_tensor_that_is_not_finite_is_counted_and_no_other(values: list[float]) -> None:
    tensors = {f"t{number}": torch.tensor([1.0, value]) for number, value in enumerate(values)}
    expected = [f"t{number}" for number, value in enumerate(values) if not math.isfinite(value)]
    assert not_finite(tensors) == expected
    for words in (loss_words(math.nan, tensors), gradient_words(math.nan, tensors)):
        assert (f"{len(expected)} of {len(values)} adapter tensors" in words) == bool(expected)
