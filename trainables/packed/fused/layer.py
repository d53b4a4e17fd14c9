"""Computes one decoder layer between two hidden states, as a node of autograd's graph.

Under activation checkpointing (Chen et al. 2016, arXiv 1604.06174) a layer keeps its input alone, and the backward pass
computes again only what it needs: not the layer's last product, unless a norm follows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trainables.packed.fused.attention import AttentionState, FusedAttention
from trainables.packed.fused.form import DecoderForm, LayerForm
from trainables.packed.fused.mlp import FusedMlp, MlpState
from trainables.packed.fused.norm import FrozenNorm, NoNorm
from trainables.packed.fused.positions import Positions
from trainables.packed.pack import Pack


@dataclass
class LayerState:
    """All that a layer's backward pass needs beside its input, n x hidden: see the blocks' states."""

    attention: AttentionState
    mlp: MlpState


class FusedLayer:
    """One decoder layer; hidden states are (rows * tokens) x hidden."""

    def __init__(
        self, name: str, module: Any, own: LayerForm, form: DecoderForm, linears: Mapping[str, nn.Linear],
        bring: Callable[[], None],
    ) -> None:  # fmt: skip
        """`module` is transformers' own layer, `name` its name in the model; `own` is its form.

        `bring` is called before the layer's frozen weights are read; they are there until another layer's is called.
        """
        self._module = module
        self._bring = bring
        self._offset = form.family.norm_offset
        names = form.family.norms
        of_attention = self._norm(names.before_attention) or NoNorm(), self._norm(names.after_attention)
        of_mlp = self._norm(names.before_mlp) or NoNorm(), self._norm(names.after_mlp)
        self._attention = FusedAttention(f"{name}.self_attn", module.self_attn, form, own, of_attention, linears)
        self._mlp = FusedMlp(f"{name}.mlp", form, of_mlp, linears)

    def _norm(self, name: str | None) -> FrozenNorm | None:
        return FrozenNorm(getattr(self._module, name), self._offset) if name else None

    @property
    def device(self) -> torch.device:
        """The device of the layer's weights."""
        return self._mlp.groups[0].device

    def adapted(self, pack: Pack) -> bool:
        """Whether any adapter of the pack updates this layer."""
        return any(pack.updates(group.names) for group in (*self._attention.groups, *self._mlp.groups))

    def forward(self, hidden: torch.Tensor, positions: Positions, pack: Pack) -> torch.Tensor:
        """Returns the layer's output, with nothing kept."""
        return self.output(self.state(hidden, positions, pack, graph=False), positions, pack, keep=False)

    def apply(self, hidden: torch.Tensor, positions: Positions, pack: Pack, input_too: bool) -> torch.Tensor:
        """Returns the layer's output with autograd's graph; `input_too`: `hidden` needs its gradient as well."""
        checkpointing = self._module.gradient_checkpointing and self._module.training
        output: torch.Tensor = _LayerFunction.apply(hidden, self, positions, pack, checkpointing, input_too)
        return output

    def state(self, hidden: torch.Tensor, positions: Positions, pack: Pack, graph: bool) -> LayerState:
        """Computes all but the last product; `graph` records the attention for a backward pass."""
        self._bring()
        residual, attention = self._attention.forward(hidden, positions, pack, graph)
        return LayerState(attention, self._mlp.gate_and_up(residual, pack, positions.tokens))

    def output(self, state: LayerState, positions: Positions, pack: Pack, keep: bool) -> torch.Tensor:
        """Returns the layer's output from its state, which `keep` leaves as it is."""
        return self._mlp.output(state.mlp, pack, positions.tokens, keep)

    def backward(
        self, hidden: torch.Tensor, grad: torch.Tensor, state: LayerState, positions: Positions, pack: Pack,
        input_too: bool,
    ) -> torch.Tensor | None:  # fmt: skip
        """Adds to the adapters' gradients, given the output's; returns that of `hidden` where it is needed."""
        self._bring()
        grad_residual = self._mlp.backward(grad, state.mlp, pack, positions.tokens)
        return self._attention.backward(hidden, grad_residual, state.attention, positions, input_too)


class _LayerFunction(torch.autograd.Function):
    """A layer in autograd's graph; its adapters' gradients are added to their weights' `.grad` directly."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        layer: FusedLayer,
        positions: Positions,
        pack: Pack,
        checkpointing: bool,
        input_too: bool,
    ) -> torch.Tensor:
        state = layer.state(hidden, positions, pack, graph=not checkpointing)
        ctx.save_for_backward(hidden)
        ctx.rest = (layer, positions, pack, input_too)
        ctx.state = None if checkpointing else state
        return layer.output(state, positions, pack, keep=not checkpointing)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, None, None, None, None, None]:
        (hidden,) = ctx.saved_tensors
        layer, positions, pack, input_too = ctx.rest
        state, ctx.state = ctx.state, None  # the MLP's backward overwrites it: it serves once
        if state is None:
            state = layer.state(hidden, positions, pack, graph=True)
        return layer.backward(hidden, grad, state, positions, pack, input_too), None, None, None, None, None
