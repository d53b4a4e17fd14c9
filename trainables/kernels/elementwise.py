"""Computes a Llama layer's elementwise parts: by Triton kernels where they can be built, else in plain torch.

Arithmetic is in fp32 whatever the tensors' type. No gradient is computed for the frozen weights of norms, which Liger's
kernels always compute; so the few kernels that a frozen model needs are our own.
"""

from __future__ import annotations

import importlib.util
import logging
from functools import cache
from types import ModuleType

import torch
from torch.nn.functional import silu

log = logging.getLogger(__name__)


@cache
def _kernels() -> ModuleType | None:
    if importlib.util.find_spec("triton") is None:
        return None
    from trainables.kernels import triton_launches

    try:
        one = torch.ones(1, 1, device="cuda")
        triton_launches.swiglu(one, one)
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


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Returns x / sqrt(mean(x^2) + eps) * weight for `x` of n x width (Zhang and Sennrich 2019, arXiv 1910.07467)."""
    if fused(x):
        with torch.cuda.device_of(x):  # Triton launches on the current card
            return _triton().rms_norm(x, weight, eps)
    wide = x.float()
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return (wide * scale).mul_(weight).to(x.dtype)


def rms_norm_backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, eps: float, residual: torch.Tensor
) -> torch.Tensor:
    """Returns the gradient of `x`, plus `residual`: what flows round the norm."""
    if fused(x):
        with torch.cuda.device_of(x):
            return _triton().rms_norm_backward(grad, x, weight, eps, residual)
    wide = x.float()
    grad = grad.float() * weight
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    along = (grad * wide).mean(-1, keepdim=True) * scale.pow(3)
    return grad.mul_(scale).sub_(wide * along).add_(residual).to(x.dtype)


def swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Returns silu(gate) * up (Shazeer 2020, arXiv 2002.05202)."""
    if fused(gate):
        with torch.cuda.device_of(gate):
            return _triton().swiglu(gate, up)
    return silu(gate.float()).mul_(up).to(gate.dtype)


def swiglu_backward(
    grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, activated: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Returns the gradients of `gate` and `up`, and silu(gate) * up where `activated`; inputs may be overwritten."""
    if fused(gate):
        with torch.cuda.device_of(gate):
            return _triton().swiglu_backward(grad, gate, up, activated)
    grad, wide = grad.float(), gate.float()
    sigmoid = torch.sigmoid(wide)
    silu_gate = wide * sigmoid
    output = (silu_gate * up).to(gate.dtype) if activated else None
    grad_gate = (1 - sigmoid).mul_(silu_gate).add_(sigmoid).mul_(grad).mul_(up)
    return grad_gate.to(gate.dtype), silu_gate.mul_(grad).to(up.dtype), output


def rotate(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rotates queries and keys by their positions (Su et al. 2021), and repeats keys and values for each query head.

    `q` is (rows * tokens) x heads x head_dim, `k` and `v` have fewer heads, `cos` and `sin` are tokens x head_dim. `q`
    may be overwritten; all three results have `heads` heads.
    """
    if fused(q):
        with torch.cuda.device_of(q):
            return _triton().rotate(q, k, v, cos, sin)
    group = q.shape[1] // k.shape[1]
    k = _rotated(k, cos, sin)
    if group > 1:
        k, v = (y[:, :, None].expand(-1, -1, group, -1).reshape(q.shape) for y in (k, v))
    return _rotated(q, cos, sin), k, v


def rotate_backward(
    grad_q: torch.Tensor, grad_k: torch.Tensor, grad_v: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, group: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns the gradients of what `rotate` took, given those of its results; `group` is query heads to a key head."""
    if fused(grad_q):
        with torch.cuda.device_of(grad_q):
            return _triton().rotate_backward(grad_q, grad_k, grad_v, cos, sin, group)
    if group > 1:
        shape = (len(grad_k), -1, group, grad_k.shape[-1])
        grad_k, grad_v = grad_k.view(shape).sum(2), grad_v.view(shape).sum(2)
    return _rotated(grad_q, cos, -sin), _rotated(grad_k, cos, -sin), grad_v


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    wide = x.view(-1, len(cos), *x.shape[1:]).float()
    half = x.shape[-1] // 2
    turned = torch.cat((-wide[..., half:], wide[..., :half]), dim=-1)
    return (wide * cos[:, None] + turned.mul_(sin[:, None])).view(x.shape).to(x.dtype)


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


def softmax_nats(logits: torch.Tensor, targets: torch.Tensor, factor: float, gradient: bool) -> torch.Tensor:
    """Returns the nats of each row's target, fp32.

    Where `gradient`, `logits` (n x vocabulary) become factor * (softmax - onehot), in place.
    """
    if fused(logits):
        with torch.cuda.device_of(logits):
            return _triton().softmax_nats(logits, targets, factor, gradient)
    wide = logits.float()
    log_total = torch.logsumexp(wide, dim=-1)
    index = targets[:, None]
    nats = log_total - wide.gather(1, index).squeeze(1)
    if gradient:
        share = wide.sub_(log_total[:, None]).exp_()
        share.scatter_add_(1, index, torch.full_like(index, -1, dtype=share.dtype))
        logits.copy_(share.mul_(factor))
    return nats
