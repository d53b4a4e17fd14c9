"""Computes a block's last product, and adds it to what flows round the block: normalized, or scaled."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from trainables.packed.fused.norm import FrozenNorm
from trainables.packed.linear_group import LinearGroup
from trainables.packed.run_update import RunUpdate


class BlockOutput:
    """One linear layer at the end of a block; its outputs are n x hidden."""

    def __init__(self, group: LinearGroup, norm: FrozenNorm | None, factor: float) -> None:
        """`norm` is that of the block's output, None where it has none; `factor` is the block's in the sum."""
        self.group = group
        self._norm = norm
        self._factor = factor

    @property
    def is_kept(self) -> bool:
        """Whether the backward pass reads the product, n x hidden: it does where a norm follows."""
        return self._norm is not None

    def product(self, x: torch.Tensor, updates: Sequence[RunUpdate]) -> torch.Tensor:
        """Returns the linear layer's output."""
        (output,) = self.group.outputs(x, updates)
        return output

    def add(
        self, x: torch.Tensor, updates: Sequence[RunUpdate], residual: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Returns `residual`, in place, plus the block's output; and the product where it `is_kept`."""
        if self._norm is None and self._factor == 1.0:
            (total,) = self.group.outputs(x, updates, residual=residual)  # by the product itself
            return total, None
        output = self.product(x, updates)
        if self._norm is None:
            return residual.add_(output, alpha=self._factor), None
        return residual.add_(self._norm.forward(output), alpha=self._factor), output

    def gradient(self, grad: torch.Tensor, product: torch.Tensor | None) -> torch.Tensor:
        """Returns the product's gradient, given that of the sum, and the product where it `is_kept`."""
        if self._factor != 1.0:
            grad = grad * self._factor
        if self._norm is None:
            return grad
        assert product is not None
        return self._norm.backward(grad, product, None)
