"""Computes what one run's adapters add to frozen linear layers, forward and backward by hand.

For the rows of one adapter, with low = (alpha / r) dropout(x) A^T, the update of y = x W^T is low B^T, and for a
gradient g of y

    dlow = (alpha / r) g B,   dB = g^T low,   dA = dlow^T dropout(x),   and dropout(dlow A) goes to dx.

All units of a run share one batched product. Where its adapters' ranks differ, zeros stand for the columns that one
lacks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from trainables.packed.dropout import Dropout
from trainables.packed.pack import Run


class RunUpdate:
    """The update of one run's adapters at the layers `names`, which read the same input.

    Forward: `project`, then `add_to_output` of each layer. Backward: `receive` the outputs' gradients, `add_to_input`,
    `accumulate`. Inputs, outputs and their gradients are (rows * tokens) x features, of all rows.
    """

    def __init__(self, run: Run, names: Sequence[str], tokens: int, dtype: torch.dtype) -> None:
        self.names = names
        self.first = run.first
        self.span = slice(run.rows.start * tokens, run.rows.stop * tokens)
        self._run = run
        self._unit_tokens = run.unit_rows * tokens
        self.low = torch.empty(0)  # the input in the adapters' ranks, scaled: what `project` computes
        self._a, self._b = _weights(run, names, dtype)
        self._parts = [slice(index * run.rank, (index + 1) * run.rank) for index in range(len(names))]
        self._dropout = Dropout(run.members, run.thinning, names[0], tokens, self._a) if run.dropout else None

    @property
    def in_features(self) -> int:
        """The width of the layers' input."""
        return self._a.shape[-1]

    def _units(self, x: torch.Tensor) -> torch.Tensor:
        return x[self.span].view(-1, self._unit_tokens, x.shape[-1])

    def _input(self, x: torch.Tensor) -> torch.Tensor:
        if self._dropout is None:
            return self._units(x)
        return self._dropout.apply(x[self.span]).view(-1, self._unit_tokens, x.shape[-1])

    def project(self, x: torch.Tensor) -> None:
        """Takes the layers' input down to the adapters' ranks."""
        self.low = torch.bmm(self._input(x), self._a.transpose(1, 2)).mul_(self._run.scales)

    def add_to_output(self, name: str, y: torch.Tensor, fresh: bool) -> None:
        """Adds the update of layer `name` to the run's part of `y`; `fresh`: overwrites it."""
        index = self.names.index(name)
        low, b = self.low[:, :, self._parts[index]], self._b[index]
        self._units(y).baddbmm_(low, b.transpose(1, 2), beta=int(not fresh))

    def receive(self, gradients: Sequence[torch.Tensor]) -> None:
        """Takes the gradients of the outputs of `names`."""
        self._gradients = [self._units(gradient) for gradient in gradients]
        self._grad_low = self._a.new_empty(self._a.shape[0], self._unit_tokens, self._a.shape[1])
        for gradient, b, part in zip(self._gradients, self._b, self._parts, strict=True):
            torch.bmm(gradient, b, out=self._grad_low[:, :, part])
        self._grad_low.mul_(self._run.scales)

    def add_to_input(self, dx: torch.Tensor, fresh: bool) -> None:
        """Adds the update's part of the input's gradient to the run's part of `dx`; `fresh`: overwrites it."""
        if self._dropout is None:
            self._units(dx).baddbmm_(self._grad_low, self._a, beta=int(not fresh))
            return
        part = torch.bmm(self._grad_low, self._a).view(-1, dx.shape[-1])
        if fresh:
            dx[self.span] = self._dropout.apply(part)
        else:
            self._dropout.add(part, dx[self.span])

    def accumulate(self, x: torch.Tensor) -> None:
        """Adds to the gradients of the adapters' weights, given the layers' input."""
        adapters = self._run.adapters
        for name, gradient, part in zip(self.names, self._gradients, self._parts, strict=True):
            grad_b = self._per_adapter(_wide_bmm(gradient.transpose(1, 2), self.low[:, :, part]))
            accumulate([adapter.weights[name].b for adapter in adapters], self._of_own_rank(grad_b.unbind(), dim=1))
        grad_a = self._per_adapter(_wide_bmm(self._grad_low.transpose(1, 2), self._input(x)))
        pairs = [adapter.weights[name] for adapter in adapters for name in self.names]
        grads_a = grad_a.view(len(pairs), -1, self.in_features).unbind()
        accumulate([pair.a for pair in pairs], self._of_own_rank(grads_a, dim=0))

    def _of_own_rank(self, gradients: Sequence[torch.Tensor], dim: int) -> Sequence[torch.Tensor]:
        """Returns gradients without what fills up the rank, in memory of their own; a padded run has one layer."""
        if not self._run.padded:
            return gradients
        trimmed = [gradient.narrow(dim, 0, rank) for gradient, rank in zip(gradients, self._run.ranks, strict=True)]
        sizes = [gradient.numel() for gradient in trimmed]
        parts = zip(gradients[0].new_empty(sum(sizes)).split(sizes), trimmed, strict=True)
        own = [part.view(gradient.shape) for part, gradient in parts]
        torch._foreach_copy_(own, trimmed)
        return own

    def _per_adapter(self, gradients: torch.Tensor) -> torch.Tensor:
        """Sums gradients of units to those of adapters."""
        if self._run.adapter_of_unit is None:
            return gradients
        total = gradients.new_zeros(len(self._run.adapters), *gradients.shape[1:])
        return total.index_add_(0, self._run.adapter_of_unit, gradients)


def _weights(run: Run, names: Sequence[str], dtype: torch.dtype) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Returns a run's weights in `dtype`: those that it keeps, where it does."""
    make = _filled_up if run.padded else _gathered
    if run.kept is None:
        return make(run, names, dtype)
    key = (tuple(names), dtype)
    if key not in run.kept:
        a, b = make(run, names, dtype)
        # B as products of a few tokens read it: a processor takes several times as long for the other order.
        run.kept[key] = a, [one.transpose(1, 2).contiguous().transpose(1, 2) for one in b]
    return run.kept[key]


def _gathered(run: Run, names: Sequence[str], dtype: torch.dtype) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Returns a run's weights in `dtype`: A as units x (layers * rank) x in_features, and each layer's B."""
    pairs = [[adapter.weights[name] for name in names] for adapter in run.unit_adapters]
    a = [pair.a for unit in pairs for pair in unit]
    b = [[unit[index].b for unit in pairs] for index in range(len(names))]
    stacks = [some[0].new_empty(len(some), *some[0].shape, dtype=dtype) for some in (a, *b)]
    places = [place for stack in stacks for place in stack.unbind()]
    torch._foreach_copy_(places, [weight for some in (a, *b) for weight in some])
    return stacks[0].view(len(pairs), -1, stacks[0].shape[-1]), stacks[1:]


def _filled_up(run: Run, names: Sequence[str], dtype: torch.dtype) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Returns the same of adapters of unlike rank, with zeros up to the run's; such a run has one layer."""
    (name,) = names
    a: list[torch.Tensor] = []
    b: list[torch.Tensor] = []
    for adapter in run.unit_adapters:
        pair, gap = adapter.weights[name], run.rank - adapter.config.rank
        a += [pair.a, run.zeros(gap, pair.a.shape[1])] if gap else [pair.a]
        b += [pair.b, run.zeros(pair.b.shape[0], gap)] if gap else [pair.b]
    rows, columns = torch.cat(a).to(dtype), torch.cat(b, dim=1).to(dtype)
    units = len(run.unit_adapters)
    return rows.view(units, run.rank, -1), [columns.view(-1, units, run.rank).transpose(0, 1)]


def _wide_bmm(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Returns the batched product in fp32, summed in fp32, of factors in any type."""
    if first.is_cuda and first.dtype != torch.float32:
        return torch.bmm(first, second, out_dtype=torch.float32)
    return torch.bmm(first, second).float()


def accumulate(parameters: Sequence[nn.Parameter], gradients: Sequence[torch.Tensor]) -> None:
    """Adds `gradients[i]` to the gradient of `parameters[i]`; all parameters are distinct."""
    old, new = [], []
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if parameter.grad is None:
            parameter.grad = gradient
        else:
            old.append(parameter.grad)
            new.append(gradient)
    if old:
        torch._foreach_add_(old, new)
