"""Launches the Triton kernels of a Llama layer's elementwise parts.

All tensors are contiguous; `n` counts tokens of all rows. What each function computes is written in plain torch in
`trainables.kernels.elementwise`.
"""

from __future__ import annotations

import torch
import triton

from trainables.kernels import triton_kernels


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Returns `x`, n x width, normalized."""
    out = torch.empty_like(x)
    block, warps = _row_block(x.shape[-1])
    triton_kernels.rms_norm[(len(x),)](x, weight, out, x.shape[-1], eps, BLOCK=block, num_warps=warps)
    return out


def rms_norm_backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, eps: float, residual: torch.Tensor
) -> torch.Tensor:
    """Returns the gradient of `x`, plus `residual`."""
    out = torch.empty_like(x)
    block, warps = _row_block(x.shape[-1])
    triton_kernels.rms_norm_backward[(len(x),)](
        grad, x, weight, residual, out, x.shape[-1], eps, BLOCK=block, num_warps=warps
    )
    return out


def swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Returns silu(gate) * up."""
    out = torch.empty_like(gate)
    triton_kernels.swiglu[(triton.cdiv(gate.numel(), 2048),)](gate, up, out, gate.numel(), BLOCK=2048, num_warps=8)
    return out


def swiglu_backward(
    grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, activated: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Returns the gradients of `gate` and `up`, in place; where `activated`, silu(gate) * up, in place of `grad`."""
    grid = (triton.cdiv(gate.numel(), 2048),)
    triton_kernels.swiglu_backward[grid](grad, gate, up, gate.numel(), ACTIVATED=activated, BLOCK=2048, num_warps=8)
    return gate, up, grad if activated else None


def rotate(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rotates `q`, n x heads x head_dim, in place; `k` and `v`, n x key heads x head_dim, get `heads` heads."""
    n, heads, head_dim = q.shape
    group = heads // k.shape[1]
    k_out, v_out = (torch.empty_like(q), torch.empty_like(q)) if group > 1 else (k, v)
    triton_kernels.rotate[(n,)](
        q, k, v, k_out, v_out, cos, sin, len(cos), heads, head_dim // 2,
        GROUP=group, BLOCK_HEADS=_power(heads), BLOCK_HALF=_power(head_dim // 2),
    )  # fmt: skip
    return q, k_out, v_out


def rotate_backward(
    grad_q: torch.Tensor, grad_k: torch.Tensor, grad_v: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, group: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns gradients before rotation, `grad_q` in place; those of `k` and `v` summed over each group of heads."""
    n, heads, head_dim = grad_q.shape
    shape = (n, heads // group, head_dim)
    k_out, v_out = (grad_k, grad_v) if group == 1 else (grad_k.new_empty(shape), grad_v.new_empty(shape))
    triton_kernels.rotate_backward[(n,)](
        grad_q, grad_k, grad_v, k_out, v_out, cos, sin, len(cos), heads, head_dim // 2,
        GROUP=group, BLOCK_HEADS=_power(heads), BLOCK_SHARED=_power(heads // group), BLOCK_HALF=_power(head_dim // 2),
    )  # fmt: skip
    return grad_q, k_out, v_out


def thin(
    x: torch.Tensor, keys: torch.Tensor, numbers: torch.Tensor, rates: torch.Tensor, layer: int, tokens: int,
    add_to: torch.Tensor | None,
) -> torch.Tensor:  # fmt: skip
    """Applies dropout to `x` ((rows * tokens) x features): as a new tensor, or added to `add_to`, in place."""
    out = torch.empty_like(x) if add_to is None else add_to
    quarter = triton.cdiv(x.shape[1], 4)
    grid = (len(x), triton.cdiv(quarter, 1024))
    triton_kernels.thin[grid](
        x, out, out, keys, numbers, rates, layer & 0x7FFFFFFF, tokens, x.shape[1], quarter,
        ADD=add_to is not None, BLOCK=1024,
    )  # fmt: skip
    return out


def softmax_nats(logits: torch.Tensor, targets: torch.Tensor, factor: float, gradient: bool) -> torch.Tensor:
    """Returns each row's nats, fp32; where `gradient`, logits become factor * (softmax - onehot), in place."""
    nats = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    triton_kernels.softmax_nats[(len(logits),)](
        logits, targets, nats, logits.shape[1], factor, GRADIENT=gradient, BLOCK=4096, num_warps=8
    )
    return nats


def _row_block(width: int) -> tuple[int, int]:
    block = _power(width)
    return block, min(16, max(4, block // 512))


def _power(count: int) -> int:
    return int(triton.next_power_of_2(count))
