"""Attends in bf16 on a processor by batched products, some rows and queries at a time, forward and backward.

A processor that multiplies bf16 does so in matrix products alone; torch's own attention kernel takes several times as
long there, most of all backward. With p = softmax(factor q k), a = p v, and a gradient g of a:

    dv = p^T g,   dp = g v^T,   ds = factor p (dp - sum(p dp)),   dq = ds k,   dk = ds^T q

Scores are fp32, and computed again in the backward pass: queries, keys and values alone are kept. The numbers are those
of torch's kernel but for rounding (the test states how much). How many scores exist at once is `SCORES_BYTES`: as many
as a processor's cache holds, since beyond it memory decides and not arithmetic.
"""

from __future__ import annotations

from typing import Any

import torch

from trainables.packed.fused.score_parts import by_token, hidden_pairs, query_slices, row_slices

SCORES_BYTES = 3 * 2**19


def serves(q: torch.Tensor) -> bool:
    """Whether the products below are faster for these queries than torch's attention kernel."""
    return q.device.type == "cpu" and q.dtype == torch.bfloat16


class CpuAttention(torch.autograd.Function):
    """`apply(q, k, v, factor, window)`: causal; tensors are rows x heads x tokens x head_dim."""

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, factor: float, window: int | None
    ) -> torch.Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.form = (factor, window)
        attended = by_token(q)
        for rows in row_slices(q.shape, SCORES_BYTES):
            own_q, own_k, own_v = (x[rows].flatten(0, 1) for x in (q, k, v))
            for queries, keys in query_slices(q.shape, window, SCORES_BYTES):
                shares = _shares(own_q[:, queries], own_k[:, keys], hidden_pairs(q, queries, keys, window), factor)
                values = torch.bmm(shares.to(q.dtype), own_v[:, keys])
                attended[rows, :, queries] = values.unflatten(0, (-1, q.shape[1]))
        return attended

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None, None]:
        q, k, v = ctx.saved_tensors
        gradients = [by_token(x) for x in (q, k, v)]
        for rows in row_slices(q.shape, SCORES_BYTES):
            own = [x[rows].flatten(0, 1) for x in (grad, q, k, v)]
            for whole, of_rows in zip(gradients, _rows_backward(own, q.shape, *ctx.form), strict=True):
                whole[rows] = of_rows.unflatten(0, (-1, q.shape[1]))
        return gradients[0], gradients[1], gradients[2], None, None


def _rows_backward(
    rows: list[torch.Tensor], shape: torch.Size, factor: float, window: int | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the gradients of some rows' queries, keys and values, the last two summed over parts in fp32.

    `rows` are the output's gradient, queries, keys and values, each (rows * heads) x tokens x head_dim.
    """
    grad, q, k, v = rows
    parts = [*query_slices(shape, window, SCORES_BYTES)]
    if len(parts) == 1:
        return _part_backward(grad, q, k, v, hidden_pairs(q, *parts[0], window), factor)
    grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k).float(), torch.zeros_like(v).float()
    for queries, keys in parts:
        own = (grad[:, queries], q[:, queries], k[:, keys], v[:, keys])
        part_q, part_k, part_v = _part_backward(*own, hidden_pairs(q, queries, keys, window), factor)
        grad_q[:, queries] = part_q
        grad_k[:, keys] += part_k
        grad_v[:, keys] += part_v
    return grad_q, grad_k, grad_v


def _part_backward(
    grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, hidden: torch.Tensor, factor: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    shares = _shares(q, k, hidden, factor)
    grad_v = torch.bmm(shares.to(q.dtype).mT, grad)
    grad_shares = torch.bmm(grad, v.mT).float()
    grad_scores = torch._softmax_backward_data(grad_shares, shares, -1, torch.float32).mul_(factor).to(q.dtype)
    return torch.bmm(grad_scores, k), torch.bmm(grad_scores.mT, q), grad_v


def _shares(q: torch.Tensor, k: torch.Tensor, hidden: torch.Tensor, factor: float) -> torch.Tensor:
    """Returns the softmax of scores, (rows * heads) x queries x keys, in fp32; `hidden` is added to the scores.

    A product is rounded to 16 bits, too few for scores: so a second one takes what the first left out.
    """
    near = torch.bmm(q, k.mT)
    rest = torch.baddbmm(near, q, k.mT, beta=-1)
    return near.float().add_(rest).mul_(factor).add_(hidden).softmax(-1)
