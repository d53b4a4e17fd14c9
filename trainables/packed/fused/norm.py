"""Normalizes hidden states by a frozen RMS norm, forward and backward, without a gradient for its weight."""

from __future__ import annotations

from typing import Any

import torch

from trainables.kernels.elementwise import rms_norm, rms_norm_backward


class FrozenNorm:
    """A frozen RMS norm (Zhang and Sennrich 2019, arXiv 1910.07467); hidden states are n x hidden."""

    def __init__(self, module: Any) -> None:
        """`module` is transformers' own norm."""
        self._module = module

    @property
    def device(self) -> torch.device:
        """The device of the norm's weight."""
        device: torch.device = self._module.weight.device
        return device

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `x` normalized, without a graph."""
        return rms_norm(x, self._module.weight, self._module.variance_epsilon)

    def backward(self, grad: torch.Tensor, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Returns the gradient of the input `x`, given the output's, plus `residual`: what flows round the norm."""
        return rms_norm_backward(grad, x, self._module.weight, self._module.variance_epsilon, residual)

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `x` normalized, with autograd's graph."""
        normed: torch.Tensor = _NormFunction.apply(x, self)
        return normed


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
