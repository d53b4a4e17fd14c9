"""Triton kernels that rotate queries and keys by position, and repeat keys and values for each query head.

Conventions are those of `trainables.kernels.triton_kernels`. `q_stride` and its like are the numbers from one token to
the next; a token's heads lie side by side. The first `2 * half` numbers of a head turn: all of them where `WHOLE`.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _copy(from_ptr, to_ptr, source, target, first, end, inside, BLOCK: tl.constexpr):  # noqa: N803
    """Copies the numbers `first` to `end` of heads, which begin at `source` and shall begin at `target`."""
    at = tl.arange(0, BLOCK)[None, :]
    inside = inside & (at >= first) & (at < end)
    tl.store(to_ptr + target + at, tl.load(from_ptr + source + at, mask=inside), mask=inside)


@triton.jit(do_not_specialize=["tokens"])
def rotate(
    q_ptr, k_ptr, v_ptr, k_out_ptr, v_out_ptr, cos_ptr, sin_ptr,
    q_stride, k_stride, v_stride, out_stride, tokens, heads, head_dim, half,
    GROUP: tl.constexpr, TURNS: tl.constexpr, WHOLE: tl.constexpr,  # noqa: N803
    BLOCK_HEADS: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_HALF: tl.constexpr,  # noqa: N803
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    token = tl.program_id(0) % tokens
    head = tl.arange(0, BLOCK_HEADS)[:, None]
    own = head * head_dim
    shared = head // GROUP * head_dim
    if TURNS:
        at = tl.arange(0, BLOCK_HALF)[None, :]
        inside = (head < heads) & (at < half)
        cos = tl.load(cos_ptr + token * 2 * half + at, mask=at < half, other=0.0).to(tl.float32)
        sin = tl.load(sin_ptr + token * 2 * half + at, mask=at < half, other=0.0).to(tl.float32)
        place = n * q_stride + own + at
        low = tl.load(q_ptr + place, mask=inside, other=0.0).to(tl.float32)
        high = tl.load(q_ptr + place + half, mask=inside, other=0.0).to(tl.float32)
        tl.store(q_ptr + place, (low * cos - high * sin).to(q_ptr.dtype.element_ty), mask=inside)
        tl.store(q_ptr + place + half, (high * cos + low * sin).to(q_ptr.dtype.element_ty), mask=inside)
        place = n * k_stride + shared + at
        low = tl.load(k_ptr + place, mask=inside, other=0.0).to(tl.float32)
        high = tl.load(k_ptr + place + half, mask=inside, other=0.0).to(tl.float32)
        place = n * out_stride + own + at
        tl.store(k_out_ptr + place, (low * cos - high * sin).to(k_out_ptr.dtype.element_ty), mask=inside)
        tl.store(k_out_ptr + place + half, (high * cos + low * sin).to(k_out_ptr.dtype.element_ty), mask=inside)
    if GROUP > 1:
        target = n * out_stride + own
        if not WHOLE:
            _copy(k_ptr, k_out_ptr, n * k_stride + shared, target, 2 * half, head_dim, head < heads, BLOCK_DIM)
        _copy(v_ptr, v_out_ptr, n * v_stride + shared, target, 0, head_dim, head < heads, BLOCK_DIM)


@triton.jit
def _sum(
    from_ptr, to_ptr, source, target, first, end, head, shared_heads, head_dim,
    GROUP: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """Sums the numbers `first` to `end` over the query heads of each key head."""
    at = tl.arange(0, BLOCK)[None, :]
    inside = (head < shared_heads) & (at >= first) & (at < end)
    total = _group_sum(from_ptr, source + at, head, inside, head_dim, GROUP, ROWS, BLOCK)
    tl.store(to_ptr + target + head * head_dim + at, total.to(to_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _group_sum(
    from_ptr, place, head, inside, head_dim, GROUP: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr  # noqa: N803
):  # fmt: skip
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for one in tl.static_range(GROUP):
        own = (head * GROUP + one) * head_dim
        total += tl.load(from_ptr + place + own, mask=inside, other=0.0).to(tl.float32)
    return total


@triton.jit(do_not_specialize=["tokens"])
def rotate_backward(
    grad_q_ptr, grad_k_ptr, grad_v_ptr, k_out_ptr, v_out_ptr, cos_ptr, sin_ptr,
    q_stride, k_stride, v_stride, out_stride, tokens, heads, head_dim, half,
    GROUP: tl.constexpr, TURNS: tl.constexpr, WHOLE: tl.constexpr, BLOCK_HEADS: tl.constexpr,  # noqa: N803
    BLOCK_SHARED: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_HALF: tl.constexpr,  # noqa: N803
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    token = tl.program_id(0) % tokens
    shared_heads = heads // GROUP
    shared = tl.arange(0, BLOCK_SHARED)[:, None]
    if TURNS:
        at = tl.arange(0, BLOCK_HALF)[None, :]
        cos = tl.load(cos_ptr + token * 2 * half + at, mask=at < half, other=0.0).to(tl.float32)
        sin = tl.load(sin_ptr + token * 2 * half + at, mask=at < half, other=0.0).to(tl.float32)
        head = tl.arange(0, BLOCK_HEADS)[:, None]
        inside = (head < heads) & (at < half)
        place = n * q_stride + head * head_dim + at
        low = tl.load(grad_q_ptr + place, mask=inside, other=0.0).to(tl.float32)
        high = tl.load(grad_q_ptr + place + half, mask=inside, other=0.0).to(tl.float32)
        tl.store(grad_q_ptr + place, (low * cos + high * sin).to(grad_q_ptr.dtype.element_ty), mask=inside)
        tl.store(grad_q_ptr + place + half, (high * cos - low * sin).to(grad_q_ptr.dtype.element_ty), mask=inside)
        inside = (shared < shared_heads) & (at < half)
        place = n * k_stride + at
        low = _group_sum(grad_k_ptr, place, shared, inside, head_dim, GROUP, BLOCK_SHARED, BLOCK_HALF)
        high = _group_sum(grad_k_ptr, place + half, shared, inside, head_dim, GROUP, BLOCK_SHARED, BLOCK_HALF)
        out = n * out_stride + shared * head_dim + at
        tl.store(k_out_ptr + out, (low * cos + high * sin).to(k_out_ptr.dtype.element_ty), mask=inside)
        tl.store(k_out_ptr + out + half, (high * cos - low * sin).to(k_out_ptr.dtype.element_ty), mask=inside)
    if GROUP > 1:
        if not WHOLE:
            _sum(
                grad_k_ptr, k_out_ptr, n * k_stride, n * out_stride, 2 * half, head_dim, shared, shared_heads, head_dim,
                GROUP, BLOCK_SHARED, BLOCK_DIM,
            )  # fmt: skip
        _sum(
            grad_v_ptr, v_out_ptr, n * v_stride, n * out_stride, 0, head_dim, shared, shared_heads, head_dim,
            GROUP, BLOCK_SHARED, BLOCK_DIM,
        )  # fmt: skip
