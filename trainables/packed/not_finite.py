"""Says which of an adapter's tensors hold numbers that are not finite."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def not_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Returns the names of the tensors with a NaN or an infinity, in their order."""
    return [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]


def loss_words(loss: float, weights: Mapping[str, torch.Tensor]) -> str:
    """Words a loss that is not finite, and whether the adapter's own weights are why."""
    named = not_finite(weights)
    if not named:
        return f"the loss was {loss}, over adapter weights that are all finite"
    return f"the loss was {loss}: {_counted(named, weights)} held weights that are not finite"


def gradient_words(norm: float, gradients: Mapping[str, torch.Tensor]) -> str:
    """Words a gradient norm that is not finite, by the tensors that it comes from."""
    named = not_finite(gradients)
    if not named:
        return f"the gradient norm was {norm}: every gradient was finite, the sum of their squares was not"
    return f"the gradient norm was {norm}: {_counted(named, gradients)} had gradients that are not finite"


def _counted(named: list[str], tensors: Mapping[str, torch.Tensor]) -> str:
    first = named[0] if len(named) == 1 else f"the first is {named[0]}"
    return f"{len(named)} of {len(tensors)} adapter tensors ({first})"
