"""Capped attention in parts, against the formula written out for all pairs and autograd."""

from __future__ import annotations

import pytest
import torch

from trainables import limits
from trainables.limits import FP32_BYTES
from trainables.packed.fused import capped_attention
from trainables.packed.fused.capped_attention import CappedAttention

ROWS, HEADS, TOKENS, HEAD_DIM = 3, 2, 9, 4
FACTOR, CAP = 0.7, 1.3
OF_QUERY = HEADS * TOKENS * FP32_BYTES


def drawn(seed: int) -> torch.Tensor:
    return torch.randn(
        ROWS, HEADS, TOKENS, HEAD_DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float32
    )


def by_formula(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int | None) -> torch.Tensor:
    scores = CAP * torch.tanh(q @ k.mT * FACTOR / CAP)
    back = torch.arange(TOKENS)[:, None] - torch.arange(TOKENS)
    seen = (back >= 0) & (back < (window or TOKENS))
    return scores.masked_fill(~seen, float("-inf")).softmax(-1) @ v


@pytest.mark.parametrize("window", [None, 1, 4])
@pytest.mark.parametrize("room", [1, 2 * OF_QUERY, 2 * TOKENS * OF_QUERY, 2**26])
def test_values_and_gradients_are_the_formulas(window: int | None, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """fp32: 1e-5; in parts of one query, of two, of two rows, and at once."""
    monkeypatch.setattr(limits, "CAPPED_SCORES_BYTES", room)
    inputs = [drawn(seed).requires_grad_() for seed in range(3)]
    grad = drawn(3)
    expected = by_formula(*inputs, window)
    theirs = torch.autograd.grad(expected, inputs, grad)
    attended = CappedAttention.apply(*inputs, FACTOR, CAP, window)
    ours = torch.autograd.grad(attended, inputs, grad)
    for one, other in zip((attended, *ours), (expected, *theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("room", [OF_QUERY, 3 * OF_QUERY, 2 * TOKENS * OF_QUERY])
def test_no_more_scores_exist_at_once_than_there_is_room_for(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CAPPED_SCORES_BYTES", room)
    sizes = []
    original = capped_attention._shares

    def noting(*arguments):
        shares, bent = original(*arguments)
        sizes.append(shares.numel() * FP32_BYTES)
        return shares, bent

    monkeypatch.setattr(capped_attention, "_shares", noting)
    inputs = [drawn(seed).requires_grad_() for seed in range(3)]
    torch.autograd.grad(CappedAttention.apply(*inputs, FACTOR, CAP, None).sum(), inputs)
    assert max(sizes) <= room
