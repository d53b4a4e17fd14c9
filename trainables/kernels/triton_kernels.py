"""Triton kernels of a decoder layer's elementwise parts: arithmetic in fp32, storage in the tensors' own type.

`trainables.kernels.triton_launches` launches them, and those of `triton_rotation`. No matrix products: cards without
Triton's matrix support (a T4) run these too. `n` counts tokens of all rows; a `stride` is the numbers from one row of a
tensor to its next. What a family's form adds is a branch that is decided when a kernel is compiled: without it, the
code is that of a Llama.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl

_PHILOX_ROUNDS = tl.constexpr(7)  # as many as pass BigCrush (Salmon et al. 2011, "Parallel random numbers")
_GELU_CUBE = tl.constexpr(0.044715)
_GELU_TWICE_SCALE = tl.constexpr(1.5957691216057308)  # 2 sqrt(2 / pi)


@triton.jit
def rms_norm(x_ptr, weight_ptr, out_ptr, x_stride, width, eps, OFFSET: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    x = tl.load(x_ptr + row * x_stride + at, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + at, mask=inside, other=0.0).to(tl.float32)
    if OFFSET != 0.0:
        weight += OFFSET
    scale = 1.0 / tl.sqrt(tl.sum(x * x, axis=0) / width + eps)
    tl.store(out_ptr + row * width + at, (x * scale * weight).to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def rms_norm_backward(
    grad_ptr, x_ptr, weight_ptr, residual_ptr, out_ptr, grad_stride, x_stride, residual_stride, width, eps,
    OFFSET: tl.constexpr, RESIDUAL: tl.constexpr, BLOCK: tl.constexpr,  # noqa: N803
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < width
    x = tl.load(x_ptr + row * x_stride + at, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + at, mask=inside, other=0.0).to(tl.float32)
    if OFFSET != 0.0:
        weight += OFFSET
    grad = tl.load(grad_ptr + row * grad_stride + at, mask=inside, other=0.0).to(tl.float32) * weight
    scale = 1.0 / tl.sqrt(tl.sum(x * x, axis=0) / width + eps)
    along = tl.sum(grad * x, axis=0) / width * scale * scale * scale
    if RESIDUAL:
        residual = tl.load(residual_ptr + row * residual_stride + at, mask=inside, other=0.0).to(tl.float32)
        out = residual + grad * scale - x * along
    else:
        out = grad * scale - x * along
    tl.store(out_ptr + row * width + at, out.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _gated_places(size, width, stride, HALVES: tl.constexpr, BLOCK: tl.constexpr):  # noqa: N803
    """Where a program's numbers are in n x width, where in gate and up, and which of them exist."""
    if HALVES:  # one program for a block of a row
        column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        row = tl.program_id(0).to(tl.int64)
        return row * width + column, row * stride + column, column < width
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    return at, at, at < size


@triton.jit
def gated(
    gate_ptr, up_ptr, out_ptr, size, width, stride,
    ACTIVATION: tl.constexpr, HALVES: tl.constexpr, BLOCK: tl.constexpr,  # noqa: N803
):  # fmt: skip
    at, source, inside = _gated_places(size, width, stride, HALVES, BLOCK)
    gate = tl.load(gate_ptr + source, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + source, mask=inside, other=0.0).to(tl.float32)
    if ACTIVATION == "silu":
        out = gate / (1.0 + tl.exp(-gate)) * up
    else:  # x (1 + tanh(u)) / 2, without a tanh: (1 + tanh(u)) / 2 = 1 / (1 + exp(-2 u))
        twice_u = gate * (1.0 + gate * gate * _GELU_CUBE) * _GELU_TWICE_SCALE
        out = gate / (1.0 + tl.exp(-twice_u)) * up
    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def gated_backward(
    grad_ptr, gate_ptr, up_ptr, size, width, stride,
    ACTIVATION: tl.constexpr, ACTIVATED: tl.constexpr, HALVES: tl.constexpr, BLOCK: tl.constexpr,  # noqa: N803
):  # fmt: skip
    at, source, inside = _gated_places(size, width, stride, HALVES, BLOCK)
    grad = tl.load(grad_ptr + at, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(gate_ptr + source, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + source, mask=inside, other=0.0).to(tl.float32)
    if ACTIVATION == "silu":
        sigmoid = 1.0 / (1.0 + tl.exp(-gate))
        grad_gate = grad * up * sigmoid * (1.0 + gate * (1.0 - sigmoid))
    else:
        square = gate * gate
        twice_u = gate * (1.0 + square * _GELU_CUBE) * _GELU_TWICE_SCALE
        sigmoid = 1.0 / (1.0 + tl.exp(-twice_u))
        along = gate * (1.0 + square * _GELU_CUBE * 3.0) * _GELU_TWICE_SCALE  # x times the derivative of 2 u
        grad_gate = grad * up * sigmoid * (1.0 + along * (1.0 - sigmoid))
    tl.store(gate_ptr + source, grad_gate.to(gate_ptr.dtype.element_ty), mask=inside)
    tl.store(up_ptr + source, (grad * gate * sigmoid).to(up_ptr.dtype.element_ty), mask=inside)
    if ACTIVATED:
        tl.store(grad_ptr + at, (gate * sigmoid * up).to(grad_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _thinned(x_ptr, add_ptr, out_ptr, at, inside, bits, rate, ADD: tl.constexpr):  # noqa: N803
    keep = (bits >> 8).to(tl.float32) * 5.9604644775390625e-08 >= rate  # 24 bits of 32, times 2^-24
    x = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    out = tl.where(keep, x / (1.0 - rate), 0.0)
    if ADD:
        out += tl.load(add_ptr + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["layer", "tokens"])
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
def _tanh(x):
    """By its series near zero, where the quotient of exponentials would lose digits."""
    square = x * x
    series = 1.0 + square * (-1 / 3 + square * (2 / 15 + square * (-17 / 315 + square * (62 / 2835))))
    decay = tl.exp(-2.0 * tl.abs(x))
    quotient = (1.0 - decay) / (1.0 + decay)
    return tl.where(tl.abs(x) < 0.25, x * series, tl.where(x < 0.0, -quotient, quotient))


@triton.jit
def _bent(logits, divisor, cap, DIVIDED: tl.constexpr, CAPPED: tl.constexpr):  # noqa: N803
    if DIVIDED:
        logits = logits / divisor
    if CAPPED:
        logits = cap * _tanh(logits / cap)
    return logits


@triton.jit
def softmax_nats(
    logits_ptr, targets_ptr, nats_ptr, width, factor, divisor, cap,
    DIVIDED: tl.constexpr, CAPPED: tl.constexpr, GRADIENT: tl.constexpr, BLOCK: tl.constexpr,  # noqa: N803
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    logits_ptr += row * width
    target = tl.load(targets_ptr + row)
    chosen = _bent(tl.load(logits_ptr + target).to(tl.float32), divisor, cap, DIVIDED, CAPPED)
    highest = tl.full((BLOCK,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, width, BLOCK):
        at = start + tl.arange(0, BLOCK)
        logits = tl.load(logits_ptr + at, mask=at < width, other=-float("inf")).to(tl.float32)
        if DIVIDED or CAPPED:
            logits = tl.where(at < width, _bent(logits, divisor, cap, DIVIDED, CAPPED), -float("inf"))
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
            bent = _bent(logits, divisor, cap, DIVIDED, CAPPED)
            share = tl.exp(bent - log_total) - tl.where(at == target, 1.0, 0.0)
            if CAPPED:
                share *= 1.0 - (bent / cap) * (bent / cap)
            tl.store(logits_ptr + at, (share * factor).to(logits_ptr.dtype.element_ty), mask=at < width)
