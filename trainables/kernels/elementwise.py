"""Computes a decoder layer's elementwise parts: by Triton kernels where they can be built, else in plain torch.

Arithmetic is in fp32 whatever the tensors' type. No gradient is computed for the frozen weights of norms, which Liger's
kernels always compute; so the few kernels that a frozen model needs are our own.
"""

from __future__ import annotations

import importlib.util
import logging
from functools import cache
from types import ModuleType
from typing import Literal

import torch
from torch.nn.functional import gelu, silu

Activation = Literal["silu", "gelu_tanh"]

BLOCK_NUMBERS = 2**19  # of logits that plain torch copies at once: to map new memory takes longer than the arithmetic

log = logging.getLogger(__name__)


@cache
def _kernels() -> ModuleType | None:
    if importlib.util.find_spec("triton") is None:
        return None
    from trainables.kernels import triton_launches

    try:
        one = torch.ones(1, 1, device="cuda")
        triton_launches.gated(one, one, "silu")
    except Exception as error:  # whatever it is that keeps a kernel from being built: no C compiler, an unknown card
        log.warning("Triton builds no kernels here (%r): elementwise parts run in plain torch, which is slower.", error)
        return None
    return triton_launches


def kernels_on(device: torch.device) -> bool:
    """Whether kernels compute on this device."""
    return device.type == "cuda" and _kernels() is not None


def fused(x: torch.Tensor) -> bool:
    """Whether kernels compute on this tensor's device."""
    return kernels_on(x.device)


def _triton() -> ModuleType:
    kernels = _kernels()
    assert kernels is not None
    return kernels


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float = 0.0) -> torch.Tensor:
    """Returns x / sqrt(mean(x^2) + eps) * (offset + weight) (Zhang and Sennrich 2019, arXiv 1910.07467).

    `x` is n x width; its rows may lie apart, as parts of wider ones. The result is contiguous.
    """
    if fused(x):
        with torch.cuda.device_of(x):  # Triton launches on the current card
            return _triton().rms_norm(x, weight, eps, offset)
    wide = x.float()
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (wide * scale).mul_(_from_offset(weight, offset)).to(x.dtype)


def rms_norm_backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, eps: float, residual: torch.Tensor | None,
    offset: float = 0.0,
) -> torch.Tensor:  # fmt: skip
    """Returns the gradient of `x`, plus `residual`: what flows round the norm. Rows of all three may lie apart."""
    if fused(x):
        with torch.cuda.device_of(x):
            return _triton().rms_norm_backward(grad, x, weight, eps, residual, offset)
    wide = x.float()
    grad = grad.float() * _from_offset(weight, offset)
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    along = (grad * wide).mean(-1, keepdim=True) * scale.pow(3)
    total = grad.mul_(scale).sub_(wide * along)
    return (total if residual is None else total.add_(residual)).to(x.dtype)


def _from_offset(weight: torch.Tensor, offset: float) -> torch.Tensor:
    return weight.float() + offset if offset else weight


def gated(gate: torch.Tensor, up: torch.Tensor, activation: Activation = "silu") -> torch.Tensor:
    """Returns activation(gate) * up (Shazeer 2020, arXiv 2002.05202): "silu", or the GELU that is computed by tanh.

    Both are n x width, and may be the halves of one tensor, n x 2 width. The result is contiguous.
    """
    if fused(gate):
        with torch.cuda.device_of(gate):
            return _triton().gated(gate, up, activation)
    wide = gate.float()
    activated = silu(wide) if activation == "silu" else gelu(wide, approximate="tanh")
    return activated.mul_(up).to(gate.dtype)


def gated_backward(
    grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, activated: bool, activation: Activation = "silu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Returns the gradients of `gate` and `up`, in their place, and activation(gate) * up where `activated`.

    Halves of one tensor become the halves of its gradient. `grad` may be overwritten.
    """
    if fused(gate):
        with torch.cuda.device_of(gate):
            return _triton().gated_backward(grad, gate, up, activated, activation)
    grad, wide = grad.float(), gate.float()
    of_value = grad * up
    if activation == "silu":
        value, slope = silu(wide), torch.ops.aten.silu_backward(of_value, wide)
    else:
        value = gelu(wide, approximate="tanh")
        slope = torch.ops.aten.gelu_backward(of_value, wide, approximate="tanh")
    output = (value * up).to(gate.dtype) if activated else None
    gate.copy_(slope)
    up.copy_(value.mul_(grad))
    return gate, up, output


def rotate(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cos: torch.Tensor | None, sin: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rotates queries and keys by their positions (Su et al. 2021), and repeats keys and values for each query head.

    `q` is (rows * tokens) x heads x head_dim, `k` and `v` have fewer heads; they may be parts of one tensor, whose rows
    are theirs side by side. `cos` and `sin` are tokens x width, where the first `width` numbers of a head turn (and
    `width` is at most head_dim), or None where none do. The inputs may be overwritten, and are the results where
    nothing is repeated; all three results have `heads` heads.
    """
    if fused(q):
        with torch.cuda.device_of(q):
            return _triton().rotate(q, k, v, cos, sin)
    group = q.shape[1] // k.shape[1]
    if cos is not None and sin is not None:
        q, k = _rotated(q, cos, sin), _rotated(k, cos, sin)
    if group > 1:
        k, v = (y[:, :, None].expand(-1, -1, group, -1).reshape(q.shape) for y in (k, v))
    return q, k, v


def rotate_backward(
    grad_q: torch.Tensor, grad_k: torch.Tensor, grad_v: torch.Tensor, cos: torch.Tensor | None,
    sin: torch.Tensor | None, group: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Returns the gradients of what `rotate` took, given those of its results, which may be overwritten.

    `group` is query heads to a key head.
    """
    if fused(grad_q):
        with torch.cuda.device_of(grad_q):
            return _triton().rotate_backward(grad_q, grad_k, grad_v, cos, sin, group)
    if group > 1:
        shape = (len(grad_k), -1, group, grad_k.shape[-1])
        grad_k, grad_v = grad_k.view(shape).sum(2), grad_v.view(shape).sum(2)
    if cos is None or sin is None:
        return grad_q, grad_k, grad_v
    return _rotated(grad_q, cos, -sin), _rotated(grad_k, cos, -sin), grad_v


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    width = cos.shape[-1]
    wide = x[..., :width].view(-1, len(cos), x.shape[1], width).float()
    half = width // 2
    turned = torch.cat((-wide[..., half:], wide[..., :half]), dim=-1)
    turned = (wide * cos[:, None] + turned.mul_(sin[:, None])).view(-1, x.shape[1], width).to(x.dtype)
    return turned if width == x.shape[-1] else torch.cat((turned, x[..., width:]), dim=-1)


def thin(
    x: torch.Tensor, keys: torch.Tensor, numbers: torch.Tensor, rates: torch.Tensor, layer: int, tokens: int,
    add_to: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """Applies dropout on a card (`fused`), by bits of (the row's key, layer, the row's number, token, feature).

    `x` is (rows * tokens) x features, `keys`, `numbers` and `rates` have one entry for each row; returns a new tensor,
    or `add_to` with the outcome added.
    """
    with torch.cuda.device_of(x):
        return _triton().thin(x, keys, numbers, rates, layer, tokens, add_to)


def softmax_nats(
    logits: torch.Tensor, targets: torch.Tensor, factor: float, gradient: bool, divisor: float = 1.0,
    cap: float | None = None,
) -> torch.Tensor:  # fmt: skip
    """Returns the nats of each row's target, fp32, under logits that are divided first, then capped.

    Capped logits are cap * tanh(logits / cap). Where `gradient`, `logits` (n x vocabulary, raw) become factor times
    their own gradient, in place: factor * (softmax - onehot) where they are neither divided nor capped.
    """
    if fused(logits):
        with torch.cuda.device_of(logits):
            return _triton().softmax_nats(logits, targets, factor, gradient, divisor, cap)
    size = max(1, BLOCK_NUMBERS // logits.shape[1])
    blocks = zip(logits.split(size), targets[:, None].split(size), strict=True)
    return torch.cat([_block_nats(part, own, factor, gradient, divisor, cap) for part, own in blocks])


def _block_nats(
    logits: torch.Tensor, targets: torch.Tensor, factor: float, gradient: bool, divisor: float, cap: float | None
) -> torch.Tensor:
    """Does as `softmax_nats` for a few rows, whose copies in fp32 a processor's cache holds; `targets` is n x 1."""
    wide = logits.float()
    if divisor != 1.0:
        wide = wide / divisor
    bent = None
    if cap is not None:
        bent = torch.tanh(wide / cap)
        wide = bent * cap
    likelihoods = torch.log_softmax(wide, dim=-1)
    nats = likelihoods.gather(1, targets).squeeze(1).neg_()
    if gradient:
        share = likelihoods.exp_()
        share.scatter_add_(1, targets, torch.full_like(targets, -1, dtype=share.dtype))
        if bent is not None:
            share.mul_(bent.square_().neg_().add_(1))
        logits.copy_(share.mul_(factor / divisor))
    return nats
