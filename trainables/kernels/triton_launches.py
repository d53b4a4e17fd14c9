"""Launches the Triton kernels of a decoder layer's elementwise parts.

`n` counts tokens of all rows. A row's numbers lie side by side; rows may lie apart where a kernel takes their stride.
What each function computes is written in plain torch in `trainables.kernels.elementwise`.
"""

from __future__ import annotations

import torch
import triton

from trainables.kernels import triton_kernels, triton_rotation

_GATED_BLOCK = 2048


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float) -> torch.Tensor:
    """Returns `x`, n x width, normalized."""
    out = x.new_empty(x.shape)
    block, warps = _row_block(x.shape[-1])
    triton_kernels.rms_norm[(len(x),)](
        x, weight, out, _row_stride(x), x.shape[-1], eps, OFFSET=offset, BLOCK=block, num_warps=warps
    )
    return out


def rms_norm_backward(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, eps: float, residual: torch.Tensor | None, offset: float
) -> torch.Tensor:
    """Returns the gradient of `x`, plus `residual`."""
    out = x.new_empty(x.shape)
    block, warps = _row_block(x.shape[-1])
    beside = x if residual is None else residual  # a pointer that is not read
    triton_kernels.rms_norm_backward[(len(x),)](
        grad, x, weight, beside, out, _row_stride(grad), _row_stride(x), _row_stride(beside), x.shape[-1], eps,
        OFFSET=offset, RESIDUAL=residual is not None, BLOCK=block, num_warps=warps,
    )  # fmt: skip
    return out


def gated(gate: torch.Tensor, up: torch.Tensor, activation: str) -> torch.Tensor:
    """Returns activation(gate) * up."""
    out = gate.new_empty(gate.shape)
    grid, sizes, halves = _gated_grid(gate, up)
    triton_kernels.gated[grid](
        gate, up, out, *sizes, ACTIVATION=activation, HALVES=halves, BLOCK=_GATED_BLOCK, num_warps=8
    )
    return out


def gated_backward(
    grad: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, activated: bool, activation: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Returns the gradients of `gate` and `up`, in place; where `activated`, their product in place of `grad`."""
    grid, sizes, halves = _gated_grid(gate, up)
    triton_kernels.gated_backward[grid](
        grad, gate, up, *sizes, ACTIVATION=activation, ACTIVATED=activated, HALVES=halves, BLOCK=_GATED_BLOCK,
        num_warps=8,
    )  # fmt: skip
    return gate, up, grad if activated else None


def _gated_grid(gate: torch.Tensor, up: torch.Tensor) -> tuple[tuple[int, ...], tuple[int, int, int], bool]:
    """Returns programs, sizes (of all, of a row, from row to row), and whether the two are halves of wider rows."""
    size, width = gate.numel(), gate.shape[-1]
    if gate.is_contiguous() and up.is_contiguous():
        return (triton.cdiv(size, _GATED_BLOCK),), (size, width, width), False
    assert _row_stride(gate) == _row_stride(up)
    return (len(gate), triton.cdiv(width, _GATED_BLOCK)), (size, width, _row_stride(gate)), True


def rotate(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cos: torch.Tensor | None, sin: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rotates `q`, n x heads x head_dim, in place; `k` and `v`, n x key heads x head_dim, get `heads` heads."""
    group = q.shape[1] // k.shape[1]
    if group == 1 and cos is None:
        return q, k, v
    k_out, v_out = (q.new_empty(q.shape), q.new_empty(q.shape)) if group > 1 else (k, v)
    angles, sizes, forms = _turns(q, cos, sin)
    triton_rotation.rotate[(len(q),)](
        q, k, v, k_out, v_out, *angles, *(_row_stride(y) for y in (q, k, v, k_out)), *sizes, GROUP=group, **forms
    )
    return q, k_out, v_out


def rotate_backward(
    grad_q: torch.Tensor, grad_k: torch.Tensor, grad_v: torch.Tensor, cos: torch.Tensor | None,
    sin: torch.Tensor | None, group: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Returns gradients before rotation, `grad_q` in place; those of `k` and `v` summed over each group of heads."""
    n, heads, head_dim = grad_q.shape
    if group == 1 and cos is None:
        return grad_q, grad_k, grad_v
    shape = (n, heads // group, head_dim)
    k_out, v_out = (grad_k, grad_v) if group == 1 else (grad_k.new_empty(shape), grad_v.new_empty(shape))
    angles, sizes, forms = _turns(grad_q, cos, sin)
    triton_rotation.rotate_backward[(n,)](
        grad_q, grad_k, grad_v, k_out, v_out, *angles, *(_row_stride(y) for y in (grad_q, grad_k, grad_v, k_out)),
        *sizes, GROUP=group, BLOCK_SHARED=_power(heads // group), **forms,
    )  # fmt: skip
    return grad_q, k_out, v_out


def _turns(
    q: torch.Tensor, cos: torch.Tensor | None, sin: torch.Tensor | None
) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[int, int, int, int], dict[str, int]]:
    """Returns cos and sin (or pointers that are not read), sizes (tokens, heads, head_dim, half), and the form."""
    _, heads, head_dim = q.shape
    blocks = {"BLOCK_HEADS": _power(heads), "BLOCK_DIM": _power(head_dim)}
    if cos is None or sin is None:
        return (q, q), (1, heads, head_dim, 0), {"TURNS": False, "WHOLE": False, "BLOCK_HALF": 1, **blocks}
    tokens, width = cos.shape
    form = {"TURNS": True, "WHOLE": width == head_dim, "BLOCK_HALF": _power(width // 2), **blocks}
    return (cos, sin), (tokens, heads, head_dim, width // 2), form


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


def softmax_nats(
    logits: torch.Tensor, targets: torch.Tensor, factor: float, gradient: bool, divisor: float, cap: float | None
) -> torch.Tensor:
    """Returns each row's nats, fp32; where `gradient`, logits become factor times their own gradient, in place."""
    nats = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    triton_kernels.softmax_nats[(len(logits),)](
        logits, targets, nats, logits.shape[1], factor / divisor, divisor, cap or 1.0,
        DIVIDED=divisor != 1.0, CAPPED=cap is not None, GRADIENT=gradient, BLOCK=4096, num_warps=8,
    )  # fmt: skip
    return nats


def _row_stride(x: torch.Tensor) -> int:
    """Numbers from one row to the next; within a row they must lie side by side."""
    assert x.stride(-1) == 1
    assert x.dim() == 2 or x.shape[1] == 1 or x.stride(1) == x.shape[2]
    return x.stride(0)


def _row_block(width: int) -> tuple[int, int]:
    block = _power(width)
    return block, min(16, max(4, block // 512))


def _power(count: int) -> int:
    return int(triton.next_power_of_2(count))
