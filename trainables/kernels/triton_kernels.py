"""Triton kernels of a Llama layer's elementwise parts: arithmetic in fp32, storage in the tensors' own type.

`trainables.kernels.triton_launches` launches them. No matrix products: cards without Triton's matrix support (a T4)
run these too. All tensors are contiguous; `n` counts tokens of all rows.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl

_PHILOX_ROUNDS = tl.constexpr(7)  # as many as pass BigCrush (Salmon et al. 2011, "Parallel random numbers")


@triton.jit
def rms_norm(x_ptr, weight_ptr, out_ptr, width, eps, BLOCK: tl.constexpr):  # noqa: N803
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    x = tl.load(x_ptr + row * width + at, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + at, mask=inside, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(x * x, axis=0) / width + eps)
    tl.store(out_ptr + row * width + at, (x * scale * weight).to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def rms_norm_backward(grad_ptr, x_ptr, weight_ptr, residual_ptr, out_ptr, width, eps, BLOCK: tl.constexpr):  # noqa: N803
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    x = tl.load(x_ptr + row * width + at, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + at, mask=inside, other=0.0).to(tl.float32)
    grad = tl.load(grad_ptr + row * width + at, mask=inside, other=0.0).to(tl.float32) * weight
    residual = tl.load(residual_ptr + row * width + at, mask=inside, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(x * x, axis=0) / width + eps)
    along = tl.sum(grad * x, axis=0) / width * scale * scale * scale
    out = residual + grad * scale - x * along
    tl.store(out_ptr + row * width + at, out.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def swiglu(gate_ptr, up_ptr, out_ptr, size, BLOCK: tl.constexpr):  # noqa: N803
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    gate = tl.load(gate_ptr + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + at, mask=inside, other=0.0).to(tl.float32)
    out = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def swiglu_backward(grad_ptr, gate_ptr, up_ptr, size, ACTIVATED: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    grad = tl.load(grad_ptr + at, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(gate_ptr + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + at, mask=inside, other=0.0).to(tl.float32)
    sigmoid = 1.0 / (1.0 + tl.exp(-gate))
    grad_gate = grad * up * sigmoid * (1.0 + gate * (1.0 - sigmoid))
    tl.store(gate_ptr + at, grad_gate.to(gate_ptr.dtype.element_ty), mask=inside)
    tl.store(up_ptr + at, (grad * gate * sigmoid).to(up_ptr.dtype.element_ty), mask=inside)
    if ACTIVATED:
        tl.store(grad_ptr + at, (gate * sigmoid * up).to(grad_ptr.dtype.element_ty), mask=inside)


@triton.jit
def rotate(
    q_ptr, k_ptr, v_ptr, k_out_ptr, v_out_ptr, cos_ptr, sin_ptr, tokens, heads, half,
    GROUP: tl.constexpr, BLOCK_HEADS: tl.constexpr, BLOCK_HALF: tl.constexpr,  # noqa: N803
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    token = tl.program_id(0) % tokens
    head = tl.arange(0, BLOCK_HEADS)[:, None]
    at = tl.arange(0, BLOCK_HALF)[None, :]
    inside = (head < heads) & (at < half)
    cos = tl.load(cos_ptr + token * 2 * half + at, mask=at < half, other=0.0).to(tl.float32)
    sin = tl.load(sin_ptr + token * 2 * half + at, mask=at < half, other=0.0).to(tl.float32)
    own = (n * heads + head) * 2 * half + at
    low = tl.load(q_ptr + own, mask=inside, other=0.0).to(tl.float32)
    high = tl.load(q_ptr + own + half, mask=inside, other=0.0).to(tl.float32)
    tl.store(q_ptr + own, (low * cos - high * sin).to(q_ptr.dtype.element_ty), mask=inside)
    tl.store(q_ptr + own + half, (high * cos + low * sin).to(q_ptr.dtype.element_ty), mask=inside)
    shared = (n * (heads // GROUP) + head // GROUP) * 2 * half + at
    low = tl.load(k_ptr + shared, mask=inside, other=0.0).to(tl.float32)
    high = tl.load(k_ptr + shared + half, mask=inside, other=0.0).to(tl.float32)
    tl.store(k_out_ptr + own, (low * cos - high * sin).to(k_out_ptr.dtype.element_ty), mask=inside)
    tl.store(k_out_ptr + own + half, (high * cos + low * sin).to(k_out_ptr.dtype.element_ty), mask=inside)
    if GROUP > 1:
        tl.store(v_out_ptr + own, tl.load(v_ptr + shared, mask=inside), mask=inside)
        tl.store(v_out_ptr + own + half, tl.load(v_ptr + shared + half, mask=inside), mask=inside)


@triton.jit
def rotate_backward(
    grad_q_ptr, grad_k_ptr, grad_v_ptr, k_out_ptr, v_out_ptr, cos_ptr, sin_ptr, tokens, heads, half,
    GROUP: tl.constexpr, BLOCK_HEADS: tl.constexpr, BLOCK_SHARED: tl.constexpr, BLOCK_HALF: tl.constexpr,  # noqa: N803
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    token = tl.program_id(0) % tokens
    at = tl.arange(0, BLOCK_HALF)[None, :]
    cos = tl.load(cos_ptr + token * 2 * half + at, mask=at < half, other=0.0).to(tl.float32)
    sin = tl.load(sin_ptr + token * 2 * half + at, mask=at < half, other=0.0).to(tl.float32)
    head = tl.arange(0, BLOCK_HEADS)[:, None]
    inside = (head < heads) & (at < half)
    own = (n * heads + head) * 2 * half + at
    low = tl.load(grad_q_ptr + own, mask=inside, other=0.0).to(tl.float32)
    high = tl.load(grad_q_ptr + own + half, mask=inside, other=0.0).to(tl.float32)
    tl.store(grad_q_ptr + own, (low * cos + high * sin).to(grad_q_ptr.dtype.element_ty), mask=inside)
    tl.store(grad_q_ptr + own + half, (high * cos - low * sin).to(grad_q_ptr.dtype.element_ty), mask=inside)
    shared_heads = heads // GROUP
    head = tl.arange(0, BLOCK_SHARED)[:, None]
    inside = (head < shared_heads) & (at < half)
    k_low = tl.zeros((BLOCK_SHARED, BLOCK_HALF), tl.float32)
    k_high = tl.zeros((BLOCK_SHARED, BLOCK_HALF), tl.float32)
    v_low = tl.zeros((BLOCK_SHARED, BLOCK_HALF), tl.float32)
    v_high = tl.zeros((BLOCK_SHARED, BLOCK_HALF), tl.float32)
    for one in tl.static_range(GROUP):
        own = (n * heads + head * GROUP + one) * 2 * half + at
        k_low += tl.load(grad_k_ptr + own, mask=inside, other=0.0).to(tl.float32)
        k_high += tl.load(grad_k_ptr + own + half, mask=inside, other=0.0).to(tl.float32)
        if GROUP > 1:
            v_low += tl.load(grad_v_ptr + own, mask=inside, other=0.0).to(tl.float32)
            v_high += tl.load(grad_v_ptr + own + half, mask=inside, other=0.0).to(tl.float32)
    out = (n * shared_heads + head) * 2 * half + at
    tl.store(k_out_ptr + out, (k_low * cos + k_high * sin).to(k_out_ptr.dtype.element_ty), mask=inside)
    tl.store(k_out_ptr + out + half, (k_high * cos - k_low * sin).to(k_out_ptr.dtype.element_ty), mask=inside)
    if GROUP > 1:
        tl.store(v_out_ptr + out, v_low.to(v_out_ptr.dtype.element_ty), mask=inside)
        tl.store(v_out_ptr + out + half, v_high.to(v_out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _thinned(x_ptr, add_ptr, out_ptr, at, inside, bits, rate, ADD: tl.constexpr):  # noqa: N803
    keep = (bits >> 8).to(tl.float32) * 5.9604644775390625e-08 >= rate  # 24 bits of 32, times 2^-24
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    out = tl.where(keep, x / (1.0 - rate), 0.0)
    if ADD:
        out += tl.load(add_ptr + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["layer"])
def thin(
    x_ptr, add_ptr, out_ptr, keys_ptr, numbers_ptr, rates_ptr, layer, tokens, features, quarter,
    ADD: tl.constexpr, BLOCK: tl.constexpr,  # noqa: N803
):  # fmt: skip
    n = tl.program_id(0)
    row, token = n // tokens, n % tokens
    rate = tl.load(rates_ptr + row)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    none = column * 0
    number = tl.load(numbers_ptr + row).to(tl.int32)
    first, second, third, fourth = tl.philox(
        tl.load(keys_ptr + row), column, none + token, none + number, none + layer, _PHILOX_ROUNDS
    )
    at = n.to(tl.int64) * features + column
    inside = column < quarter
    _thinned(x_ptr, add_ptr, out_ptr, at, inside & (column < features), first, rate, ADD)
    _thinned(x_ptr, add_ptr, out_ptr, at + quarter, inside & (column + quarter < features), second, rate, ADD)
    _thinned(x_ptr, add_ptr, out_ptr, at + 2 * quarter, inside & (column + 2 * quarter < features), third, rate, ADD)
    _thinned(x_ptr, add_ptr, out_ptr, at + 3 * quarter, inside & (column + 3 * quarter < features), fourth, rate, ADD)


@triton.jit
def softmax_nats(logits_ptr, targets_ptr, nats_ptr, width, factor, GRADIENT: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803
    row = tl.program_id(0).to(tl.int64)
    logits_ptr += row * width
    target = tl.load(targets_ptr + row)
    chosen = tl.load(logits_ptr + target).to(tl.float32)
    highest = tl.full((BLOCK,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, width, BLOCK):
        at = start + tl.arange(0, BLOCK)
        logits = tl.load(logits_ptr + at, mask=at < width, other=-float("inf")).to(tl.float32)
        higher = tl.maximum(highest, logits)
        base = tl.where(higher == -float("inf"), 0.0, higher)  # a NaN does not raise the maximum, and must not be lost
        total = total * tl.exp(highest - base) + tl.exp(logits - base)
        highest = higher
    top = tl.max(highest, axis=0)
    log_total = top + tl.log(tl.sum(total * tl.exp(highest - top), axis=0))
    tl.store(nats_ptr + row, log_total - chosen)
    if GRADIENT:
        for start in range(0, width, BLOCK):
            at = start + tl.arange(0, BLOCK)
            logits = tl.load(logits_ptr + at, mask=at < width, other=0.0).to(tl.float32)
            share = tl.exp(logits - log_total) - tl.where(at == target, 1.0, 0.0)
            tl.store(logits_ptr + at, (share * factor).to(logits_ptr.dtype.element_ty), mask=at < width)
