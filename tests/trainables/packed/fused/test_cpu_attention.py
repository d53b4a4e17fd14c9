"""Attention in bf16 by batched products, in parts, against the formula in fp64 and autograd."""

from __future__ import annotations

import pytest
import torch

from trainables.limits import FP32_BYTES
from trainables.packed.fused import cpu_attention
from trainables.packed.fused.cpu_attention import CpuAttention, serves
from trainables.packed.fused.scores import Scores

ROWS, HEADS, TOKENS, HEAD_DIM = 3, 2, 9, 16
FACTOR = 0.7  # no power of two; scores of size 10, whose bf16 would be wrong by up to 0.03
OF_QUERY = HEADS * TOKENS * FP32_BYTES
ROUNDING = 0.004  # of the numbers' norm: a half step of bf16, 2^-9, once for the shares and once for the result


def drawn(seed: int) -> torch.Tensor:
    numbers = torch.randn(ROWS, TOKENS, HEADS, HEAD_DIM, generator=torch.Generator().manual_seed(seed))
    return (2 * numbers).bfloat16().transpose(1, 2)


def by_formula(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int | None) -> torch.Tensor:
    back = torch.arange(TOKENS)[:, None] - torch.arange(TOKENS)
    seen = (back >= 0) & (back < (window or TOKENS))
    return (q @ k.mT * FACTOR).masked_fill(~seen, float("-inf")).softmax(-1) @ v


@pytest.mark.parametrize("window", [None, 1, 4])
@pytest.mark.parametrize("room", [1, 2 * OF_QUERY, 2 * TOKENS * OF_QUERY, 2**26])
def test_values_and_gradients_are_the_formulas(window: int | None, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """To 0.4 % of their norm; in parts of one query, of two, of two rows, and at once."""
    monkeypatch.setattr(cpu_attention, "SCORES_BYTES", room)
    inputs = [drawn(seed).requires_grad_() for seed in range(3)]
    exact = [one.detach().double().requires_grad_() for one in inputs]
    expected = by_formula(*exact, window)
    theirs = torch.autograd.grad(expected, exact, drawn(3).double())
    attended = CpuAttention.apply(*inputs, FACTOR, window)
    ours = torch.autograd.grad(attended, inputs, drawn(3))
    for one, other in zip((attended, *ours), (expected, *theirs), strict=True):
        assert one.dtype == torch.bfloat16
        off = ROUNDING * other.norm() + 1e-6 * expected.norm()  # a window of one token has no gradient of scores
        assert torch.linalg.norm(one.double() - other) <= off


def test_it_serves_bf16_on_a_processor_and_nothing_else() -> None:
    """fp32 goes to torch's own kernel, bit by bit; both are the same attention but for rounding."""
    inputs = [drawn(seed) for seed in range(3)]
    assert serves(inputs[0])
    assert not serves(inputs[0].float())
    assert not serves(inputs[0].to("meta"))
    wide = Scores(FACTOR).attend(*(one.float() for one in inputs), None)
    ours = Scores(FACTOR).attend(*inputs, None)
    assert torch.linalg.norm(ours.float() - wide) <= ROUNDING * torch.linalg.norm(wide)
