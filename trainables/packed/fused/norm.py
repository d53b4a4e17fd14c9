"""Normalizes by frozen RMS norms, forward and backward, without a gradient for their weights."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from trainables.kernels.elementwise import rms_norm, rms_norm_backward


class Norm(Protocol):
    """What stands before a block; hidden states are n x hidden."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns what the block reads of `x`, without a graph."""

    def backward(self, grad: torch.Tensor, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Returns the gradient of `x`, given that of `forward(x)`, plus `residual`; `grad` may be overwritten."""


class NoNorm:
    """Stands where a family has no norm: a block reads its input as it is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `x` itself."""
        return x

    def backward(self, grad: torch.Tensor, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Returns `grad` plus `residual`: what flows round the block."""
        return grad.add_(residual)


class FrozenNorm:
    """A frozen RMS norm (Zhang and Sennrich 2019, arXiv 1910.07467); hidden states are n x hidden."""

    def __init__(self, module: Any, offset: float = 0.0) -> None:
        """`module` is transformers' own norm; `offset` is added to its weight."""
        self._module = module
        self._offset = offset
        self._eps = module.eps if hasattr(module, "eps") else module.variance_epsilon

    @property
    def device(self) -> torch.device:
        """The device of the norm's weight."""
        device: torch.device = self._module.weight.device
        return device

    @property
    def width(self) -> int:
        """The numbers that are normalized together."""
        return len(self._module.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `x` normalized, without a graph."""
        return rms_norm(x, self._module.weight, self._eps, self._offset)

    def backward(self, grad: torch.Tensor, x: torch.Tensor, residual: torch.Tensor | None) -> torch.Tensor:
        """Returns the gradient of the input `x`, given the output's, plus `residual`: what flows round the norm."""
        return rms_norm_backward(grad, x, self._module.weight, self._eps, residual, self._offset)

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `x` normalized, with autograd's graph."""
        normed: torch.Tensor = _NormFunction.apply(x, self)
        return normed


BlockNorms = tuple[Norm, FrozenNorm | None]  # before a block, and of its output where it has one


class HeadNorm:
    """A frozen RMS norm of queries or keys, n x heads x head_dim: of each head, or of all, as its weight is wide."""

    def __init__(self, module: Any, offset: float) -> None:
        """`module` is transformers' own norm; `offset` is added to its weight."""
        self._norm = FrozenNorm(module, offset)

    def forward(self, heads: torch.Tensor) -> torch.Tensor:
        """Returns the heads normalized, as a new tensor."""
        return self._norm.forward(self._rows(heads)).view(heads.shape)

    def backward(self, grad: torch.Tensor, heads: torch.Tensor) -> torch.Tensor:
        """Returns the gradient of what `forward` took, given that of what it returned."""
        return self._norm.backward(self._rows(grad), self._rows(heads), None).view(heads.shape)

    def _rows(self, heads: torch.Tensor) -> torch.Tensor:
        return heads.reshape(-1, self._norm.width)


class _NormFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, norm: FrozenNorm) -> torch.Tensor:
        ctx.save_for_backward(hidden)
        ctx.norm = norm
        return norm.forward(hidden)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (hidden,) = ctx.saved_tensors
        return ctx.norm.backward(grad.contiguous(), hidden, torch.zeros_like(hidden)), None
