"""A Llama decoder for packs of adapters, forward and backward by hand.

transformers' own layers stay in charge of generation; here is the same arithmetic without what a frozen base does not
need: no gradients of norms, no attention masks (rows are padded on the right), one dequantization and one product for
each use of a weight, residuals added by the products themselves. Under activation checkpointing (Chen et al. 2016) a
layer keeps its input alone, and the backward pass computes again only what it needs: not the layer's last product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaForCausalLM
from transformers.modeling_outputs import BaseModelOutputWithPast

from trainables.kernels.elementwise import rms_norm, rms_norm_backward, rotate, rotate_backward, swiglu, swiglu_backward
from trainables.packed.linear_group import LinearGroup
from trainables.packed.pack import Pack
from trainables.packed.run_update import RunUpdate

Angles = tuple[torch.Tensor, torch.Tensor]  # cos and sin, each tokens x head_dim


def serves(model: nn.Module, linears: Mapping[str, nn.Module]) -> bool:
    """Whether the model is a Llama of the form that is computed here."""
    if not isinstance(model, LlamaForCausalLM):
        return False
    config = model.config
    plain = config.hidden_act == "silu" and not config.attention_bias and not config.mlp_bias
    return plain and not config.attention_dropout and len(linears) == 7 * config.num_hidden_layers


@dataclass
class Middle:
    """What a layer's backward pass needs, from the input's norm to the input of its last product."""

    normed: torch.Tensor
    of_qkv: list[RunUpdate]
    heads: tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # q, k, v: rows x heads x tokens x head_dim
    attended: torch.Tensor  # rows x heads x tokens x head_dim, with its graph where a backward pass follows
    of_o: list[RunUpdate]
    residual: torch.Tensor
    normed_residual: torch.Tensor
    of_gate_up: list[RunUpdate]
    gate: torch.Tensor
    up: torch.Tensor


class FusedLayer:
    """One decoder layer; hidden states are (rows * tokens) x hidden."""

    def __init__(self, name: str, layer: Any, linears: Mapping[str, nn.Linear]) -> None:
        self.module = layer
        self._head_dim = layer.self_attn.head_dim
        self._norms = (layer.input_layernorm, layer.post_attention_layernorm)
        self._qkv = _group(linears, f"{name}.self_attn", "q_proj", "k_proj", "v_proj")
        self._o = _group(linears, f"{name}.self_attn", "o_proj")
        self._gate_up = _group(linears, f"{name}.mlp", "gate_proj", "up_proj")
        self._down = _group(linears, f"{name}.mlp", "down_proj")

    def adapted(self, pack: Pack) -> bool:
        """Whether any adapter of the pack updates this layer."""
        return any(pack.updates(group.names) for group in (self._qkv, self._o, self._gate_up, self._down))

    @property
    def device(self) -> torch.device:
        """Where the layer's weights are."""
        device: torch.device = self._norms[0].weight.device
        return device

    def forward(self, hidden: torch.Tensor, angles: Angles, pack: Pack) -> torch.Tensor:
        """The layer's output, with nothing kept."""
        return self.last(self.middle(hidden, angles, pack, graph=False), angles, pack, keep=False)

    def middle(self, hidden: torch.Tensor, angles: Angles, pack: Pack, graph: bool) -> Middle:
        """All but the last product; `graph` records attention for a backward pass."""
        tokens = angles[0].shape[0]
        normed = _normed(hidden, self._norms[0])
        of_qkv, of_o, of_gate_up = (
            group.updates(pack, tokens, hidden.dtype) for group in (self._qkv, self._o, self._gate_up)
        )
        q, k, v = (self._by_head(y) for y in self._qkv.outputs(normed, of_qkv))
        q, k, v = (_by_row(y, tokens).detach().requires_grad_(graph) for y in rotate(q, k, v, *angles))
        with torch.set_grad_enabled(graph):
            attended = scaled_dot_product_attention(q, k, v, is_causal=True)
        flat = _flat(attended.detach())
        (residual,) = self._o.outputs(flat, of_o, residual=hidden.clone())
        normed_residual = _normed(residual, self._norms[1])
        gate, up = self._gate_up.outputs(normed_residual, of_gate_up)
        return Middle(normed, of_qkv, (q, k, v), attended, of_o, residual, normed_residual, of_gate_up, gate, up)

    def last(self, middle: Middle, angles: Angles, pack: Pack, keep: bool) -> torch.Tensor:
        """The layer's output from its middle, which `keep` leaves as it is."""
        activated = swiglu(middle.gate, middle.up)
        updates = self._down.updates(pack, angles[0].shape[0], activated.dtype)
        residual = middle.residual.clone() if keep else middle.residual
        (output,) = self._down.outputs(activated, updates, residual=residual)
        return output

    def backward(
        self, hidden: torch.Tensor, grad: torch.Tensor, middle: Middle, angles: Angles, pack: Pack, input_too: bool
    ) -> torch.Tensor | None:
        """Adds to the adapters' gradients, given the output's; answers that of `hidden` where it is needed."""
        grad_residual = self._mlp_backward(grad, middle, pack, angles[0].shape[0])
        self._o.receive([grad_residual], middle.of_o)
        grad_attended = self._o.input_gradient([grad_residual], middle.of_o)
        _accumulate(middle.of_o, _flat(middle.attended.detach()))
        grad_heads = self._attention_backward(grad_attended, middle, angles)
        self._qkv.receive(grad_heads, middle.of_qkv)
        _accumulate(middle.of_qkv, middle.normed)
        if not input_too:
            return None
        grad_normed = self._qkv.input_gradient(grad_heads, middle.of_qkv)
        return rms_norm_backward(grad_normed, hidden, *_scale(self._norms[0]), grad_residual)

    def _mlp_backward(self, grad: torch.Tensor, middle: Middle, pack: Pack, tokens: int) -> torch.Tensor:
        """The gradient of the residual before the MLP; `middle`'s gate and up are overwritten."""
        of_down = self._down.updates(pack, tokens, grad.dtype)
        self._down.receive([grad], of_down)
        grad_activated = self._down.input_gradient([grad], of_down)
        grad_gate, grad_up, activated = swiglu_backward(grad_activated, middle.gate, middle.up, bool(of_down))
        if activated is not None:
            for update in of_down:
                update.project(activated)
            _accumulate(of_down, activated)
        del grad_activated, activated
        grads = (grad_gate, grad_up)
        self._gate_up.receive(grads, middle.of_gate_up)
        grad_normed = self._gate_up.input_gradient(grads, middle.of_gate_up)
        _accumulate(middle.of_gate_up, middle.normed_residual)
        return rms_norm_backward(grad_normed, middle.residual, *_scale(self._norms[1]), grad)

    def _attention_backward(
        self, grad_attended: torch.Tensor, middle: Middle, angles: Angles
    ) -> tuple[torch.Tensor, ...]:
        tokens, q = angles[0].shape[0], middle.heads[0]
        grad_attended = _by_row(self._by_head(grad_attended), tokens)
        grads = torch.autograd.grad(middle.attended, middle.heads, grad_attended)
        dq, dk, dv = (grad.transpose(1, 2).reshape(-1, q.shape[1], self._head_dim) for grad in grads)
        group = self.module.self_attn.num_key_value_groups
        return tuple(grad.flatten(1) for grad in rotate_backward(dq, dk, dv, *angles, group))

    def _by_head(self, y: torch.Tensor) -> torch.Tensor:
        return y.view(y.shape[0], -1, self._head_dim)


def _accumulate(updates: list[RunUpdate], x: torch.Tensor) -> None:
    for update in updates:
        update.accumulate(x)


def _group(linears: Mapping[str, nn.Linear], parent: str, *names: str) -> LinearGroup:
    return LinearGroup({f"{parent}.{name}": linears[f"{parent}.{name}"] for name in names})


def _scale(norm: Any) -> tuple[torch.Tensor, float]:
    return norm.weight, norm.variance_epsilon


def _normed(x: torch.Tensor, norm: Any) -> torch.Tensor:
    return rms_norm(x, *_scale(norm))


def _by_row(y: torch.Tensor, tokens: int) -> torch.Tensor:
    """(rows * tokens) x heads x head_dim as rows x heads x tokens x head_dim."""
    return y.view(-1, tokens, *y.shape[1:]).transpose(1, 2)


def _flat(attended: torch.Tensor) -> torch.Tensor:
    """rows x heads x tokens x head_dim as (rows * tokens) x (heads * head_dim)."""
    return attended.transpose(1, 2).reshape(-1, attended.shape[1] * attended.shape[3])


class _LayerFunction(torch.autograd.Function):
    """A layer between two hidden states; its adapters' gradients are added to their weights' `.grad` directly."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        layer: FusedLayer,
        angles: Angles,
        pack: Pack,
        checkpointing: bool,
        input_too: bool,
    ) -> torch.Tensor:
        middle = layer.middle(hidden, angles, pack, graph=not checkpointing)
        ctx.save_for_backward(hidden)
        ctx.rest = (layer, angles, pack, input_too)
        ctx.middle = None if checkpointing else middle
        return layer.last(middle, angles, pack, keep=not checkpointing)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, None, None, None, None, None]:
        (hidden,) = ctx.saved_tensors
        layer, angles, pack, input_too = ctx.rest
        middle, ctx.middle = ctx.middle, None  # swiglu's backward overwrites it: it serves once
        if middle is None:
            middle = layer.middle(hidden, angles, pack, graph=True)
        return layer.backward(hidden, grad, middle, angles, pack, input_too), None, None, None, None, None


class _NormFunction(torch.autograd.Function):
    """The last norm, without a gradient for its weight."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        ctx.save_for_backward(hidden, weight)
        ctx.eps = eps
        return rms_norm(hidden, weight, eps)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        hidden, weight = ctx.saved_tensors
        return rms_norm_backward(grad.contiguous(), hidden, weight, ctx.eps, torch.zeros_like(hidden)), None, None


class FusedDecoder:
    """The decoder of a Llama model, from token ids to its last hidden states."""

    def __init__(self, model: Any, linears: Mapping[str, nn.Linear]) -> None:
        """`linears` are the frozen layers by their names in the model."""
        self._decoder = model.get_decoder()
        layers = enumerate(self._decoder.layers)
        self._layers = [FusedLayer(f"model.layers.{index}", layer, linears) for index, layer in layers]

    def hidden(self, input_ids: torch.Tensor, pack: Pack) -> torch.Tensor:
        """Last hidden states, rows x tokens x hidden; `input_ids` is rows x tokens, padded on the right."""
        embedded = self._decoder.embed_tokens(input_ids)
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        cos, sin = (angle[0].contiguous() for angle in self._decoder.rotary_emb(embedded, positions))
        hidden = self._through_layers(embedded.flatten(0, 1), (cos, sin), pack)
        hidden = hidden.to(self._decoder.norm.weight.device)
        return _NormFunction.apply(hidden, *_scale(self._decoder.norm)).view(embedded.shape)

    def _through_layers(self, hidden: torch.Tensor, angles: Angles, pack: Pack) -> torch.Tensor:
        """No gradient goes below the lowest layer that an adapter updates, so nothing is kept there.

        Hidden states follow the layers from card to card, and gradients back.
        """
        trained = False
        for layer in self._layers:
            if hidden.device != layer.device:
                hidden, angles = hidden.to(layer.device), (angles[0].to(layer.device), angles[1].to(layer.device))
            below = not trained
            trained = trained or (torch.is_grad_enabled() and layer.adapted(pack))
            if not trained:
                with torch.no_grad():
                    hidden = layer.forward(hidden, angles, pack)
                continue
            if below:
                hidden = hidden.detach().requires_grad_()
            checkpointing = layer.module.gradient_checkpointing and layer.module.training
            hidden = _LayerFunction.apply(hidden, layer, angles, pack, checkpointing, not below)
        return hidden

    def output(self, input_ids: torch.Tensor, pack: Pack) -> BaseModelOutputWithPast:
        """The same in transformers' form."""
        return BaseModelOutputWithPast(last_hidden_state=self.hidden(input_ids, pack))
