"""Computes a layer's attention block under several adapters: norm, attention, output projection, residual.

Rows are padded on the right, so that a causal mask alone hides padding; the products of scores are PyTorch's own
attention kernels, forward and backward, except where scores are capped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trainables.kernels.elementwise import rotate, rotate_backward
from trainables.packed.fused.block_output import BlockOutput
from trainables.packed.fused.form import DecoderForm, LayerForm
from trainables.packed.fused.joined import joined, parted
from trainables.packed.fused.norm import BlockNorms, HeadNorm
from trainables.packed.fused.positions import Positions
from trainables.packed.linear_group import LinearGroup
from trainables.packed.pack import Pack
from trainables.packed.run_update import RunUpdate


@dataclass
class AttentionState:
    """All that the block's backward needs beside its input, n x hidden, which is not copied.

    Widths of n tokens, where d, a and k are those of hidden states, of all queries and of all keys: `normed` is d, or
    the input itself where no norm stands before the block. `raw` is a + k, with norms of heads alone. `heads` are 3 a:
    a key and a value for every query head. Values that no heads share are a view of the projection's output, as are
    queries (and keys that none share) where they turn in place: of a joined projection they keep all of it, a + 2 k.
    `attended` is a; its graph keeps one fp32 number a head with PyTorch's kernels, nothing with capped scores.
    `product` is d, with a norm after the block alone. Then what `RunUpdate` keeps of both groups.
    """

    normed: torch.Tensor
    of_qkv: list[RunUpdate]
    raw: tuple[torch.Tensor, torch.Tensor] | None  # queries and keys before their norms, n x heads x head_dim
    heads: tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # q, k, v: rows x heads x tokens x head_dim
    attended: torch.Tensor  # rows x heads x tokens x head_dim, with its graph where a backward pass follows
    of_o: list[RunUpdate]
    product: torch.Tensor | None  # of the output projection, n x hidden


class FusedAttention:
    """One layer's attention block; hidden states are (rows * tokens) x hidden."""

    def __init__(
        self, name: str, module: Any, form: DecoderForm, own: LayerForm, norms: BlockNorms,
        linears: Mapping[str, nn.Linear],
    ) -> None:  # fmt: skip
        """`module` is transformers' own attention, `name` its name in the model; `own` is the layer's form."""
        shape, family = form.shape, form.family
        self._head_dim = shape.head_dim
        self._key_group = shape.attention_heads // shape.key_value_heads  # query heads to a key head
        self._widths = (shape.query_size, shape.key_size, shape.key_size)
        self._norm, after = norms
        self._own = own
        self._qkv = LinearGroup.below(name, family.qkv, linears)
        self._output = BlockOutput(LinearGroup.below(name, ("o_proj",), linears), after, form.residual_factor)
        self._head_norms = None
        if family.head_norms != "none":
            self._head_norms = [HeadNorm(norm, family.norm_offset) for norm in (module.q_norm, module.k_norm)]

    @property
    def groups(self) -> tuple[LinearGroup, ...]:
        """The block's linear layers."""
        return self._qkv, self._output.group

    def forward(
        self, hidden: torch.Tensor, positions: Positions, pack: Pack, graph: bool
    ) -> tuple[torch.Tensor, AttentionState]:
        """Returns `hidden` plus the block's output, and what the backward needs; `graph` records the attention."""
        tokens = positions.tokens
        normed = self._norm.forward(hidden)
        of_qkv, of_o = (group.updates(pack, tokens, hidden.dtype) for group in self.groups)
        q, k, v = (self._by_head(y) for y in parted(self._qkv.outputs(normed, of_qkv), self._widths))
        raw = None
        if self._head_norms is not None:
            raw = (q, k)
            q, k = (norm.forward(y) for norm, y in zip(self._head_norms, raw, strict=True))
        turned = rotate(q, k, v, *positions.angles_of(self._own))
        q, k, v = (_by_row(y, tokens).detach().requires_grad_(graph) for y in turned)
        with torch.set_grad_enabled(graph):
            attended = self._own.scores.attend(q, k, v, positions.mask_of(self._own))
        residual, product = self._output.add(_flat(attended.detach()), of_o, hidden.clone())
        return residual, AttentionState(normed, of_qkv, raw, (q, k, v), attended, of_o, product)

    def backward(
        self, hidden: torch.Tensor, grad: torch.Tensor, state: AttentionState, positions: Positions, input_too: bool
    ) -> torch.Tensor | None:
        """Adds to the adapters' gradients, given the output's; returns that of `hidden` where it is needed."""
        o = self._output.group
        grad_product = self._output.gradient(grad, state.product)
        o.receive([grad_product], state.of_o)
        grad_attended = o.input_gradient([grad_product], state.of_o)
        o.accumulate(_flat(state.attended.detach()), state.of_o)
        grads = joined(self._heads_backward(grad_attended, state, positions), len(self._qkv.names))
        self._qkv.receive(grads, state.of_qkv)
        self._qkv.accumulate(state.normed, state.of_qkv)
        if not input_too:
            return None
        grad_normed = self._qkv.input_gradient(grads, state.of_qkv)
        return self._norm.backward(grad_normed, hidden, grad)

    def _heads_backward(
        self, grad_attended: torch.Tensor, state: AttentionState, positions: Positions
    ) -> tuple[torch.Tensor, ...]:
        """Returns the gradients of queries, keys and values as their projections put them out."""
        q = state.heads[0]
        grad_attended = _by_row(self._by_head(grad_attended), positions.tokens)
        grads = torch.autograd.grad(state.attended, state.heads, grad_attended)
        dq, dk, dv = (grad.transpose(1, 2).reshape(-1, q.shape[1], self._head_dim) for grad in grads)
        dq, dk, dv = rotate_backward(dq, dk, dv, *positions.angles_of(self._own), self._key_group)
        if self._head_norms is not None:
            assert state.raw is not None
            parts = zip(self._head_norms, (dq, dk), state.raw, strict=True)
            dq, dk = (norm.backward(grad, raw) for norm, grad, raw in parts)
        return dq.flatten(1), dk.flatten(1), dv.flatten(1)

    def _by_head(self, y: torch.Tensor) -> torch.Tensor:
        return y.view(y.shape[0], -1, self._head_dim)


def _by_row(y: torch.Tensor, tokens: int) -> torch.Tensor:
    """Views (rows * tokens) x heads x head_dim as rows x heads x tokens x head_dim."""
    return y.view(-1, tokens, *y.shape[1:]).transpose(1, 2)


def _flat(attended: torch.Tensor) -> torch.Tensor:
    """Reshapes rows x heads x tokens x head_dim to (rows * tokens) x (heads * head_dim)."""
    return attended.transpose(1, 2).reshape(-1, attended.shape[1] * attended.shape[3])
