"""The update in 8 bits is bitsandbytes' own optimizer's, is skipped and unscaled as AdamW's, and trains as well."""

from __future__ import annotations

import bitsandbytes
import pytest
import torch

from tests.support.lora_cases import random_rows
from tests.support.trainables.packed_cases import make_member, make_model
from trainables.limits import FEWEST_8BIT_NUMBERS, MOMENT_BLOCK
from trainables.packed.adapter import memoryless_zeros
from trainables.packed.member import TrainingMember
from trainables.packed.optimizers.adamw import AdamW
from trainables.packed.optimizers.adamw_8bit import AdamW8bit
from trainables.packed.optimizers.optimizer_state import Resident
from trainables.packed.optimizers.rule import Rule, StepValues
from trainables.packed.training import train_step
from trainables.settings import Optimizer

SHAPES = (
    (64, 64),
    (100, 50),
    (3, 5),
    (4096,),
    (4095,),
)  # of moments in 8 bits, with a last block that is not full; fp32
RATE, DECAY = 1e-2, 0.1
THEIR_NAMES = {"exp_avg": "state1", "exp_avg_sq": "state2", "absmax": "absmax1", "absmax_sq": "absmax2"}


def weights() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def gradients(step: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(shape, generator=generator) * 10.0 ** -(step % 3) for shape in SHAPES]


def values(grad_scale: float = 1.0, skipped: bool = False) -> StepValues:
    return StepValues(RATE, DECAY, torch.tensor(grad_scale), torch.tensor(float(skipped)))


def take(state: Resident, parameters: list[torch.Tensor], step: int, grad_scale: float = 1.0) -> None:
    scaled = [one * grad_scale for one in gradients(step)]
    state.update(dict(zip(parameters, scaled, strict=True)), values(grad_scale))


def test_a_step_is_bitsandbytes_own() -> None:
    """Four steps of AdamW8bit over a copy: parameters in 8 bits are equal to the bit, moments too; others to 1e-6."""
    ours, theirs = weights(), weights()
    optimizer = bitsandbytes.optim.AdamW8bit(theirs, lr=RATE, weight_decay=DECAY)
    state = Resident(AdamW8bit(), ours, away=False)
    for step in range(4):
        take(state, ours, step)
        for parameter, gradient in zip(theirs, gradients(step), strict=True):
            parameter.grad = gradient
        optimizer.step()
    for own, other in zip(ours, theirs, strict=True):
        kept, expected = state.state[own], optimizer.state[other]
        assert float(kept["step"]) == expected["step"] == 4
        if own.numel() < FEWEST_8BIT_NUMBERS:
            torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-6)
            continue
        assert torch.equal(own, other)
        for name, its in {
            "exp_avg": "state1",
            "exp_avg_sq": "state2",
            "absmax": "absmax1",
            "absmax_sq": "absmax2",
        }.items():
            assert torch.equal(kept[name], expected[its])


@pytest.mark.parametrize("rule", [AdamW, AdamW8bit])
def test_gradients_are_divided_by_their_scale(rule: type[Rule]) -> None:
    """A scale that is a power of two changes nothing, to the bit."""
    plain, scaled = weights(), weights()
    first, second = Resident(rule(), plain, away=False), Resident(rule(), scaled, away=False)
    for step in range(2):
        take(first, plain, step)
        take(second, scaled, step, grad_scale=2.0**12)
    assert all(torch.equal(one, other) for one, other in zip(plain, scaled, strict=True))


@pytest.mark.parametrize("rule", [AdamW, AdamW8bit])
def test_a_step_that_is_skipped_changes_nothing(rule: type[Rule]) -> None:
    """Infinite gradients reach neither weights nor moments nor counters; and the next step is as if there were none."""
    parameters, twins = weights(), weights()
    state, other = Resident(rule(), parameters, away=False), Resident(rule(), twins, away=False)
    take(state, parameters, 0)
    take(other, twins, 0)
    infinite = {one: torch.full_like(one, torch.inf) for one in parameters}
    state.update(infinite, values(2.0, skipped=True))
    for step in (1, 2):
        take(state, parameters, step)
        take(other, twins, step)
    assert all(torch.equal(one, twin) for one, twin in zip(parameters, twins, strict=True))
    for one, twin in zip(parameters, twins, strict=True):
        assert all(torch.equal(value, other.state[twin][name]) for name, value in state.state[one].items())


def test_moments_take_a_byte_each_and_an_absmax_for_each_block() -> None:
    parameter = memoryless_zeros((64, 4096))
    zeros = AdamW8bit().zeros(parameter)
    assert (
        sum(one.nbytes for one in zeros.values())
        == 2 * parameter.numel() + 2 * 4 * parameter.numel() // MOMENT_BLOCK + 4
    )
    assert sum(one.untyped_storage().nbytes() for one in zeros.values()) < 20  # until they are written out
    small = AdamW8bit().zeros(memoryless_zeros((FEWEST_8BIT_NUMBERS - 1,)))
    assert {one.dtype for one in small.values()} == {torch.float32}


def test_a_training_in_8_bits_is_close_to_one_in_32() -> None:
    """Twelve steps at rank 128: each loss within 2 %, and the losses fall as they do in 32 bits."""
    model, rows = make_model(), random_rows(12, longest=12)

    def member(optimizer: Optimizer) -> TrainingMember:
        return make_member(model, rows, 5, 12, None, optimizer, rank=128)

    one, other = member("adamw"), member("adamw_8bit")
    in_32, in_8 = ([train_step(model, [each], rows)[0].loss for _ in range(12)] for each in (one, other))
    assert in_8 == pytest.approx(in_32, rel=0.02)
    assert in_8[1:] != in_32[1:]
    assert max(in_8[-3:]) < min(in_8[:3])
