"""Attends by softly capped scores, some rows and queries at a time, forward and backward.

With c = cap tanh(factor q k / cap) (Gemma 2, arXiv 2408.00118), p = softmax(c), a = p v, and a gradient g of a:

    dv = p^T g,   dp = g v^T,   dc = p (dp - sum(p dp)),   d(q k) = factor (1 - tanh^2) dc

Scores are fp32, and computed again in the backward pass: queries, keys and values alone are kept. How many exist at
once is `trainables.limits.CAPPED_SCORES_BYTES`. Beside them there are the q, k and v of their rows once more, in the
backward pass also the gradients of those, of k and v in fp32.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from trainables.packed.fused.score_parts import by_token, query_slices, row_slices, steps_back


class CappedAttention(torch.autograd.Function):
    """`apply(q, k, v, factor, cap, window)`: causal; tensors are rows x heads x tokens x head_dim."""

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, factor: float, cap: float, window: int | None
    ) -> torch.Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.form = (factor, cap, window)
        attended = by_token(q)
        for rows in row_slices(q.shape):
            own_q, own_k, own_v = (x[rows].flatten(0, 1) for x in (q, k, v))
            for queries, keys in query_slices(q.shape, window):
                shares, _ = _shares(own_q, own_k, queries, keys, *ctx.form)
                values = torch.bmm(shares.to(q.dtype), own_v[:, keys])
                attended[rows, :, queries] = values.unflatten(0, (-1, q.shape[1]))
        return attended

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None, None, None]:
        q, k, v = ctx.saved_tensors
        grad_q, grad_k, grad_v = (by_token(x) for x in (q, k, v))
        for rows in row_slices(q.shape):
            own = [x[rows].flatten(0, 1) for x in (grad, q, k, v)]
            gradients = _rows_backward(own, query_slices(q.shape, ctx.form[2]), ctx.form)
            for whole, of_rows in zip((grad_q, grad_k, grad_v), gradients, strict=True):
                whole[rows] = of_rows.unflatten(0, (-1, q.shape[1]))
        return grad_q, grad_k, grad_v, None, None, None


def _rows_backward(
    rows: Sequence[torch.Tensor], parts: Iterable[tuple[slice, slice]], form: tuple[float, float, int | None]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the gradients of some rows' queries, keys and values, the last two summed over `parts` in fp32.

    `rows` are the output's gradient, queries, keys and values, each (rows * heads) x tokens x head_dim.
    """
    grad, q, k, v = rows
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k).float(), torch.zeros_like(v).float()
    for queries, keys in parts:
        shares, bent = _shares(q, k, queries, keys, *form)
        grad_v[:, keys] += _wide_bmm(shares.to(q.dtype).mT, grad[:, queries])
        grad_scores = _wide_bmm(grad[:, queries], v[:, keys].mT)
        grad_scores.sub_((grad_scores * shares).sum(-1, keepdim=True)).mul_(shares)
        grad_products = grad_scores.mul_(bent.square_().neg_().add_(1)).mul_(form[0]).to(q.dtype)
        grad_q[:, queries] = torch.bmm(grad_products, k[:, keys])
        grad_k[:, keys] += _wide_bmm(grad_products.mT, q[:, queries])
    return grad_q, grad_k, grad_v


def _shares(
    q: torch.Tensor, k: torch.Tensor, queries: slice, keys: slice, factor: float, cap: float, window: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the softmax of capped scores, and tanh(score / cap): both (rows * heads) x queries x keys, in fp32."""
    bent = _wide_bmm(q[:, queries], k[:, keys].mT).mul_(factor / cap).tanh_()
    back = steps_back(queries, keys, q.device)
    hidden = (back < 0) if window is None else (back < 0) | (back >= window)
    return (bent * cap).masked_fill_(hidden, float("-inf")).softmax(-1), bent


def _wide_bmm(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Returns the batched product in fp32 of factors in any type."""
    if first.is_cuda and first.dtype != torch.float32:
        return torch.bmm(first, second, out_dtype=torch.float32)
    return torch.bmm(first, second).float()
