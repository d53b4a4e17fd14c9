"""Computes a layer's MLP block under several adapters: norm, gate and up, activation, down, residual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from trainables.kernels.elementwise import gated, gated_backward
from trainables.packed.fused.block_output import BlockOutput
from trainables.packed.fused.form import DecoderForm
from trainables.packed.fused.joined import joined, parted
from trainables.packed.fused.norm import BlockNorms
from trainables.packed.linear_group import LinearGroup
from trainables.packed.pack import Pack
from trainables.packed.run_update import RunUpdate


@dataclass
class MlpState:
    """All that the block's backward needs, from its input to the input of its last product.

    Widths of n tokens, where d and f are those of hidden states and between gate and down projection: `residual` is d;
    `normed` is d, or the residual itself where no norm stands before the block; `gate` and `up` are f each, views of
    one tensor where their projection is joined. `product` is d, with a norm after the block and without checkpointing
    alone; under checkpointing the backward pass computes it again, and for that the activated gate once more (f). Then
    what `RunUpdate` keeps of gate and up.
    """

    residual: torch.Tensor  # the block's input
    normed: torch.Tensor
    of_gate_up: list[RunUpdate]
    gate: torch.Tensor
    up: torch.Tensor
    product: torch.Tensor | None = None  # of the down projection, n x hidden


class FusedMlp:
    """One layer's MLP block; hidden states are (rows * tokens) x hidden.

    Forward in two parts, so that what is computed again under checkpointing leaves the last product out.
    """

    def __init__(self, name: str, form: DecoderForm, norms: BlockNorms, linears: Mapping[str, nn.Linear]) -> None:
        """`name` is that of transformers' own MLP in the model."""
        self._activation = form.activation
        self._widths = (form.shape.intermediate_size,) * 2
        self._norm, after = norms
        self._gate_up = LinearGroup.below(name, form.family.gate_up, linears)
        self._output = BlockOutput(LinearGroup.below(name, ("down_proj",), linears), after, form.residual_factor)

    @property
    def groups(self) -> tuple[LinearGroup, ...]:
        """The block's linear layers."""
        return self._gate_up, self._output.group

    def gate_and_up(self, residual: torch.Tensor, pack: Pack, tokens: int) -> MlpState:
        """Computes the block up to its gate and up projections; `residual` is its input, `tokens` those of a row."""
        normed = self._norm.forward(residual)
        of_gate_up = self._gate_up.updates(pack, tokens, residual.dtype)
        gate, up = parted(self._gate_up.outputs(normed, of_gate_up), self._widths)
        return MlpState(residual, normed, of_gate_up, gate, up)

    def output(self, state: MlpState, pack: Pack, tokens: int, keep: bool) -> torch.Tensor:
        """Returns the block's input plus its output; `keep` leaves the state as it is, else its residual is reused."""
        activated = gated(state.gate, state.up, self._activation)
        updates = self._output.group.updates(pack, tokens, activated.dtype)
        residual = state.residual.clone() if keep else state.residual
        output, product = self._output.add(activated, updates, residual)
        if keep:
            state.product = product
        return output

    def backward(self, grad: torch.Tensor, state: MlpState, pack: Pack, tokens: int) -> torch.Tensor:
        """Adds to the adapters' gradients, given the output's; returns the input's.

        The state's gate and up are overwritten: it serves once.
        """
        down = self._output.group
        of_down = down.updates(pack, tokens, grad.dtype)
        grad_product = self._product_gradient(grad, state, of_down)
        down.receive([grad_product], of_down)
        grad_activated = down.input_gradient([grad_product], of_down)
        del grad_product
        grad_gate, grad_up, activated = gated_backward(
            grad_activated, state.gate, state.up, bool(of_down), self._activation
        )
        if activated is not None:
            for update in of_down:
                update.project(activated)
            down.accumulate(activated, of_down)
        del grad_activated, activated
        grads = joined((grad_gate, grad_up), len(self._gate_up.names))
        self._gate_up.receive(grads, state.of_gate_up)
        grad_normed = self._gate_up.input_gradient(grads, state.of_gate_up)
        self._gate_up.accumulate(state.normed, state.of_gate_up)
        return self._norm.backward(grad_normed, state.residual, grad)

    def _product_gradient(self, grad: torch.Tensor, state: MlpState, of_down: list[RunUpdate]) -> torch.Tensor:
        product, state.product = state.product, None
        if product is None and self._output.is_kept:
            product = self._output.product(gated(state.gate, state.up, self._activation), of_down)
        return self._output.gradient(grad, product)
