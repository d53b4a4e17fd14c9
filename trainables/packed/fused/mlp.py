"""Computes a layer's MLP block under several adapters: norm, gate and up, SwiGLU, down projection, residual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from trainables.kernels.elementwise import gated, gated_backward
from trainables.packed.fused.norm import FrozenNorm
from trainables.packed.linear_group import LinearGroup
from trainables.packed.pack import Pack
from trainables.packed.run_update import RunUpdate


@dataclass
class MlpState:
    """All that the block's backward needs, from its input to the input of its last product."""

    residual: torch.Tensor  # the block's input
    normed: torch.Tensor
    of_gate_up: list[RunUpdate]
    gate: torch.Tensor
    up: torch.Tensor


class FusedMlp:
    """One layer's MLP block; hidden states are (rows * tokens) x hidden.

    Forward in two parts, so that what is computed again under checkpointing leaves the last product out.
    """

    def __init__(self, name: str, norm: FrozenNorm, linears: Mapping[str, nn.Linear]) -> None:
        """`name` is that of transformers' own MLP in the model."""
        self._norm = norm
        self._gate_up = LinearGroup.below(name, ("gate_proj", "up_proj"), linears)
        self._down = LinearGroup.below(name, ("down_proj",), linears)

    @property
    def groups(self) -> tuple[LinearGroup, ...]:
        """The block's linear layers."""
        return self._gate_up, self._down

    def gate_and_up(self, residual: torch.Tensor, pack: Pack, tokens: int) -> MlpState:
        """Computes the block up to its gate and up projections; `residual` is its input, `tokens` those of a row."""
        normed = self._norm.forward(residual)
        of_gate_up = self._gate_up.updates(pack, tokens, residual.dtype)
        gate, up = self._gate_up.outputs(normed, of_gate_up)
        return MlpState(residual, normed, of_gate_up, gate, up)

    def output(self, state: MlpState, pack: Pack, tokens: int, keep: bool) -> torch.Tensor:
        """Returns the block's input plus its output; `keep` leaves the state as it is, else its residual is reused."""
        activated = gated(state.gate, state.up)
        updates = self._down.updates(pack, tokens, activated.dtype)
        residual = state.residual.clone() if keep else state.residual
        (output,) = self._down.outputs(activated, updates, residual=residual)
        return output

    def backward(self, grad: torch.Tensor, state: MlpState, pack: Pack, tokens: int) -> torch.Tensor:
        """Adds to the adapters' gradients, given the output's; returns the input's.

        The state's gate and up are overwritten: it serves once.
        """
        of_down = self._down.updates(pack, tokens, grad.dtype)
        self._down.receive([grad], of_down)
        grad_activated = self._down.input_gradient([grad], of_down)
        grad_gate, grad_up, activated = gated_backward(grad_activated, state.gate, state.up, bool(of_down))
        if activated is not None:
            for update in of_down:
                update.project(activated)
            self._down.accumulate(activated, of_down)
        del grad_activated, activated
        grads = (grad_gate, grad_up)
        self._gate_up.receive(grads, state.of_gate_up)
        grad_normed = self._gate_up.input_gradient(grads, state.of_gate_up)
        self._gate_up.accumulate(state.normed, state.of_gate_up)
        return self._norm.backward(grad_normed, state.residual, grad)
