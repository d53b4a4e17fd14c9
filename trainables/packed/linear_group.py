"""Computes frozen linear layers under several adapters by hand: y = x W^T + b, dx = g W, and the updates.

A frozen weight is dequantized and multiplied once for all rows; sums that share a buffer are accumulated by the matrix
product itself. Neighbouring rows whose adapters have the same rank and targets share one batched product; in a padded
pack those of any rank do (`trainables.packed.pack`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import bitsandbytes
import torch
from torch import nn

from trainables.packed.pack import Pack
from trainables.packed.run_update import RunUpdate


def frozen_weight(linear: nn.Linear, dtype: torch.dtype) -> torch.Tensor:
    """Returns a frozen layer's weight in `dtype`, out_features x in_features; a 4-bit one is dequantized."""
    state = getattr(linear.weight, "quant_state", None)
    if state is None:
        return linear.weight.to(dtype)
    return bitsandbytes.functional.dequantize_4bit(linear.weight.data, state).to(dtype)


class LinearGroup:
    """Frozen linear layers that read the same input, (rows * tokens) x in_features."""

    def __init__(self, linears: Mapping[str, nn.Linear]) -> None:
        self.names = tuple(linears)
        self._linears = list(linears.values())
        self._device = self._linears[0].weight.device

    @property
    def device(self) -> torch.device:
        """The device of the layers' weights."""
        return self._device

    @classmethod
    def below(cls, parent: str, names: Sequence[str], linears: Mapping[str, nn.Linear]) -> LinearGroup:
        """Takes the layers `names` of the module `parent` from a model's linear layers."""
        return cls({f"{parent}.{name}": linears[f"{parent}.{name}"] for name in names})

    def updates(self, pack: Pack, tokens: int, dtype: torch.dtype) -> list[RunUpdate]:
        """Returns what the pack's adapters add, their weights in `dtype`; `tokens` are those of a row."""
        runs = pack.runs(self.names, self._device)
        return [RunUpdate(run, [self.names[place] for place in run.places], tokens, dtype) for run in runs]

    def outputs(
        self, x: torch.Tensor, updates: Sequence[RunUpdate], residual: torch.Tensor | None = None
    ) -> list[torch.Tensor]:
        """Returns each layer's output, its bias included; `residual` (of a single layer) is added to it, in place."""
        for update in updates:
            update.project(x)
        return [self._output(place, x, updates, residual) for place in range(len(self.names))]

    def _output(
        self, place: int, x: torch.Tensor, updates: Sequence[RunUpdate], residual: torch.Tensor | None
    ) -> torch.Tensor:
        name, weight, bias = self.names[place], frozen_weight(self._linears[place], x.dtype), self._bias(place, x.dtype)
        own = [update for update in updates if name in update.names]
        if residual is None and not own:
            return nn.functional.linear(x, weight, bias)
        y, fresh = _begun(x, weight.shape[0], own, bias, residual)
        for update in own:
            update.add_to_output(name, y, fresh)
        return y.addmm_(x, weight.t())

    def _bias(self, place: int, dtype: torch.dtype) -> torch.Tensor | None:
        bias = self._linears[place].bias
        return None if bias is None else bias.to(dtype)

    def receive(self, gradients: Sequence[torch.Tensor], updates: Sequence[RunUpdate]) -> None:
        """Hands the outputs' gradients to the updates."""
        of_name = dict(zip(self.names, gradients, strict=True))
        for update in updates:
            update.receive([of_name[name] for name in update.names])

    def input_gradient(self, gradients: Sequence[torch.Tensor], updates: Sequence[RunUpdate]) -> torch.Tensor:
        """Returns the input's gradient, given the outputs', which the updates have received."""
        first = [update for update in updates if update.first]
        total = _blank(gradients[0], updates[0].in_features, first) if updates else None
        for update in updates:
            assert total is not None
            update.add_to_input(total, fresh=update.first)
        for linear, gradient in zip(self._linears, gradients, strict=True):
            weight = frozen_weight(linear, gradient.dtype)
            total = gradient @ weight if total is None else total.addmm_(gradient, weight)
            del weight  # before the next one is dequantized
        assert total is not None
        return total

    def accumulate(self, x: torch.Tensor, updates: Sequence[RunUpdate]) -> None:
        """Adds to the gradients of the adapters' weights, given the layers' input."""
        for update in updates:
            update.accumulate(x)


def _begun(
    x: torch.Tensor, width: int, updates: Sequence[RunUpdate], bias: torch.Tensor | None, residual: torch.Tensor | None
) -> tuple[torch.Tensor, bool]:
    """Returns what an output's products are added to, and whether the first update overwrites it instead."""
    if residual is not None:
        return residual if bias is None else residual.add_(bias), False
    if bias is not None:
        return bias.repeat(len(x), 1), False
    return _blank(x, width, updates), True


def _blank(like: torch.Tensor, width: int, updates: Sequence[RunUpdate]) -> torch.Tensor:
    """Returns a buffer of `like`'s rows: zeros where no update will write, anything elsewhere."""
    blank = like.new_empty(like.shape[0], width)
    row = 0
    for start, stop in sorted({(update.span.start, update.span.stop) for update in updates}):
        if start > row:
            blank[row:start].zero_()
        row = stop
    if row < like.shape[0]:
        blank[row:].zero_()
    return blank
