"""Adds the updates of all adapters of a pack to frozen linear layers under transformers' own code.

Layers that read the very same input are one node of autograd's graph: frozen products, then batched products that add
the updates in place, as in `trainables.packed.linear_group`. Backward by hand: the gradients of adapters' weights are
added to their `.grad` directly. Between the two only the input and the low-rank parts are kept, so that checkpointing
has what it can drop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from trainables.packed.linear_group import frozen_weight
from trainables.packed.pack import Pack
from trainables.packed.run_update import RunUpdate


@dataclass
class PackContext:
    """The pack whose batch is going through: shared by all layers, set around forward and backward.

    `batch` is the rows and tokens of the decoder's current input. `anchor` is a number that needs a gradient: beside it
    an output does, even where the input does not. `ahead` are outputs that layers of a group have not asked for yet.
    """

    pack: Pack = field(default_factory=Pack)
    batch: tuple[int, int] | None = None
    anchor: torch.Tensor = field(default_factory=lambda: torch.zeros((), requires_grad=True))
    ahead: _Ahead | None = None
    survey: list[tuple[PackedLoraLinear, torch.Tensor]] | None = None  # filled by a pass that looks who reads what
    dense: dict[str, torch.Tensor] | None = None  # frozen weights in the type of their products, where they are kept

    def clear(self) -> None:
        """Lets go of a pass: no pack, and nothing computed ahead or kept."""
        self.pack, self.ahead, self.dense = Pack(), None, None


class PackedLoraLinear(nn.Module):
    """A frozen linear layer that adds each adapter's update to that adapter's rows."""

    def __init__(self, base: nn.Linear, name: str, context: PackContext) -> None:
        super().__init__()
        self.base = base
        self.name = name
        self.context = context
        self.group: tuple[PackedLoraLinear, ...] = (self,)  # that read the same input, in the order of their calls
        self.streamed = False  # its weight comes from host memory, and is another's when its turn is over

    @property
    def weight(self) -> torch.Tensor:
        """The frozen weight, of which some decoders ask the type."""
        return self.base.weight

    @property
    def bias(self) -> torch.Tensor | None:
        """The frozen bias."""
        return self.base.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns ... x out_features, in the base's type, for `x` of rows x tokens x in_features, or flattened rows."""
        context = self.context
        if context.survey is not None:
            context.survey.append((self, x))
        if not context.pack.runs((self.name,), self.base.weight.device):
            return self.frozen(x)
        ahead = context.ahead
        if ahead is None or not ahead.holds(self.name, x):
            ahead = context.ahead = _Ahead.of(self, x)
        output = ahead.outputs.pop(self.name)
        if not ahead.outputs:
            context.ahead = None
        return output

    def frozen(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the frozen layer's own output."""
        dense = self.context.dense
        if dense is None or torch.is_grad_enabled():
            output: torch.Tensor = self.base(x)
            return output
        weight = dense.get(self.name)
        if weight is None:
            weight = frozen_weight(self.base, x.dtype)
        if not self.streamed:
            dense[self.name] = weight
        bias = self.base.bias
        return nn.functional.linear(x, weight, None if bias is None else bias.to(x.dtype))


@dataclass
class _Ahead:
    """The outputs of a group for one input, computed when its first layer was called."""

    x: torch.Tensor
    version: int  # of the input: nobody has written to it since
    with_graph: bool
    outputs: dict[str, torch.Tensor]

    @classmethod
    def of(cls, first: PackedLoraLinear, x: torch.Tensor) -> _Ahead:
        pack = first.context.pack
        layers = [one for one in first.group if one is first or pack.updates((one.name,))]
        group = _Group(layers, pack, _tokens(x, first))
        outputs = group.apply(x, first.context.anchor)
        return cls(x, _version(x), torch.is_grad_enabled(), dict(zip(group.names, outputs, strict=True)))

    def holds(self, name: str, x: torch.Tensor) -> bool:
        same = x is self.x and _version(x) == self.version and torch.is_grad_enabled() == self.with_graph
        return same and name in self.outputs


def _version(x: torch.Tensor) -> int:
    return -1 if x.is_inference() else x._version


def _tokens(x: torch.Tensor, layer: PackedLoraLinear) -> int:
    """Counts a row's tokens. Raises ValueError where the input's rows are not the batch's, which adapters go by."""
    batch = layer.context.batch or tuple(x.shape[:2])
    if not of_batch(x, batch):
        raise ValueError(
            f"an adapted layer must read rows x tokens x features of the whole batch, here {batch[0]} x {batch[1]}; "
            f"{layer.name} reads {' x '.join(map(str, x.shape))}. Leave it out of target_modules."
        )
    return batch[1]


def of_batch(x: torch.Tensor, batch: tuple[int, ...]) -> bool:
    """Whether a layer's input has the batch's rows and tokens, in their order; they may be flattened."""
    return tuple(x.shape[:-1]) in ((batch[0], batch[1]), (batch[0] * batch[1],))


class _Group:
    """Layers that read the same input, and the pack that updates them; what a backward pass goes by."""

    def __init__(self, layers: Sequence[PackedLoraLinear], pack: Pack, tokens: int) -> None:
        self.names = tuple(layer.name for layer in layers)
        self._layers = layers
        self._linears = [layer.base for layer in layers]
        self._pack = pack
        self._tokens = tokens

    def apply(self, x: torch.Tensor, anchor: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Returns each layer's output, with autograd's graph where gradients are enabled."""
        if torch.is_grad_enabled():
            outputs: tuple[torch.Tensor, ...] = _GroupedLinear.apply(x, anchor, self)
            return outputs
        return self.outputs(x, flat(x), self.updates(x.dtype))

    def updates(self, dtype: torch.dtype) -> list[RunUpdate]:
        """Returns what the pack's adapters add."""
        runs = self._pack.runs(self.names, self._linears[0].weight.device)
        return [RunUpdate(run, [self.names[place] for place in run.places], self._tokens, dtype) for run in runs]

    def outputs(self, x: torch.Tensor, rows: torch.Tensor, updates: Sequence[RunUpdate]) -> tuple[torch.Tensor, ...]:
        """Returns each layer's output; `rows` is `x` made flat. The updates keep their low-rank parts."""
        for update in updates:
            update.project(rows)
        return tuple(self._output(place, x, updates) for place in range(len(self.names)))

    def _output(self, place: int, x: torch.Tensor, updates: Sequence[RunUpdate]) -> torch.Tensor:
        y = self._layers[place].frozen(x).contiguous()
        for update in updates:
            if self.names[place] in update.names:
                update.add_to_output(self.names[place], y.view(-1, y.shape[-1]), fresh=False)
        return y

    def backward(self, x: torch.Tensor, gradients: Sequence[torch.Tensor], updates: Sequence[RunUpdate]) -> None:
        """Adds to the gradients of the adapters' weights; `x` is the flat input."""
        of_name = dict(zip(self.names, gradients, strict=True))
        for update in updates:
            update.receive([of_name[name] for name in update.names])
            update.accumulate(x)

    def input_gradient(self, gradients: Sequence[torch.Tensor], updates: Sequence[RunUpdate]) -> torch.Tensor:
        """Returns the flat input's gradient, given the outputs', which the updates have received."""
        first, *others = zip(self._linears, gradients, strict=True)
        total = first[1] @ frozen_weight(first[0], first[1].dtype)
        for linear, gradient in others:
            total.addmm_(gradient, frozen_weight(linear, gradient.dtype))
        for update in updates:
            update.add_to_input(total, fresh=False)
        return total


def flat(x: torch.Tensor) -> torch.Tensor:
    """Returns a tensor's last dimension by all others."""
    return x.reshape(-1, x.shape[-1]).contiguous()


class _GroupedLinear(torch.autograd.Function):
    """A group in autograd's graph; its adapters' gradients are added to their weights' `.grad` directly."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, anchor: torch.Tensor, group: _Group) -> tuple[torch.Tensor, ...]:
        updates = group.updates(x.dtype)
        rows = flat(x)
        outputs = group.outputs(x, rows, updates)
        ctx.save_for_backward(rows, *(update.low for update in updates))
        ctx.group, ctx.shape = group, x.shape
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        rows, *lows = ctx.saved_tensors
        group: _Group = ctx.group
        updates = group.updates(rows.dtype)  # gathered again: kept, they would take as much as the adapters themselves
        for update, low in zip(updates, lows, strict=True):
            update.low = low
        grads = [flat(gradient) for gradient in gradients]
        group.backward(rows, grads, updates)
        if not ctx.needs_input_grad[0]:
            return None, None, None
        return group.input_gradient(grads, updates).view(ctx.shape), None, None
