"""Computes a layer's attention block under several adapters: norm, attention, output projection, residual.

Rows are padded on the right, so that a causal mask alone hides padding; the products of scores are PyTorch's own
attention kernels, forward and backward.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from trainables.kernels.elementwise import rotate, rotate_backward
from trainables.packed.fused.norm import FrozenNorm
from trainables.packed.linear_group import LinearGroup
from trainables.packed.pack import Pack
from trainables.packed.run_update import RunUpdate

Angles = tuple[torch.Tensor, torch.Tensor]  # cos and sin of rotary positions, each tokens x head_dim


@dataclass
class AttentionState:
    """All that the block's backward needs beside its input."""

    normed: torch.Tensor
    of_qkv: list[RunUpdate]
    heads: tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # q, k, v: rows x heads x tokens x head_dim
    attended: torch.Tensor  # rows x heads x tokens x head_dim, with its graph where a backward pass follows
    of_o: list[RunUpdate]


class FusedAttention:
    """One layer's attention block; hidden states are (rows * tokens) x hidden."""

    def __init__(self, name: str, module: Any, norm: FrozenNorm, linears: Mapping[str, nn.Linear]) -> None:
        """`module` is transformers' own attention, `name` its name in the model."""
        self._head_dim = module.head_dim
        self._key_group = module.num_key_value_groups  # query heads to a key head
        self._norm = norm
        self._qkv = LinearGroup.below(name, ("q_proj", "k_proj", "v_proj"), linears)
        self._o = LinearGroup.below(name, ("o_proj",), linears)

    @property
    def groups(self) -> tuple[LinearGroup, ...]:
        """The block's linear layers."""
        return self._qkv, self._o

    def forward(
        self, hidden: torch.Tensor, angles: Angles, pack: Pack, graph: bool
    ) -> tuple[torch.Tensor, AttentionState]:
        """Returns `hidden` plus the block's output, and what the backward needs; `graph` records the attention."""
        tokens = angles[0].shape[0]
        normed = self._norm.forward(hidden)
        of_qkv, of_o = (group.updates(pack, tokens, hidden.dtype) for group in self.groups)
        q, k, v = (self._by_head(y) for y in self._qkv.outputs(normed, of_qkv))
        q, k, v = (_by_row(y, tokens).detach().requires_grad_(graph) for y in rotate(q, k, v, *angles))
        with torch.set_grad_enabled(graph):
            attended = scaled_dot_product_attention(q, k, v, is_causal=True)
        (residual,) = self._o.outputs(_flat(attended.detach()), of_o, residual=hidden.clone())
        return residual, AttentionState(normed, of_qkv, (q, k, v), attended, of_o)

    def backward(
        self, hidden: torch.Tensor, grad: torch.Tensor, state: AttentionState, angles: Angles, input_too: bool
    ) -> torch.Tensor | None:
        """Adds to the adapters' gradients, given the output's; returns that of `hidden` where it is needed."""
        self._o.receive([grad], state.of_o)
        grad_attended = self._o.input_gradient([grad], state.of_o)
        self._o.accumulate(_flat(state.attended.detach()), state.of_o)
        grad_heads = self._heads_backward(grad_attended, state, angles)
        self._qkv.receive(grad_heads, state.of_qkv)
        self._qkv.accumulate(state.normed, state.of_qkv)
        if not input_too:
            return None
        grad_normed = self._qkv.input_gradient(grad_heads, state.of_qkv)
        return self._norm.backward(grad_normed, hidden, grad)

    def _heads_backward(
        self, grad_attended: torch.Tensor, state: AttentionState, angles: Angles
    ) -> tuple[torch.Tensor, ...]:
        """Returns the gradients of queries, keys and values as their projections put them out."""
        tokens, q = angles[0].shape[0], state.heads[0]
        grad_attended = _by_row(self._by_head(grad_attended), tokens)
        grads = torch.autograd.grad(state.attended, state.heads, grad_attended)
        dq, dk, dv = (grad.transpose(1, 2).reshape(-1, q.shape[1], self._head_dim) for grad in grads)
        return tuple(grad.flatten(1) for grad in rotate_backward(dq, dk, dv, *angles, self._key_group))

    def _by_head(self, y: torch.Tensor) -> torch.Tensor:
        return y.view(y.shape[0], -1, self._head_dim)


def _by_row(y: torch.Tensor, tokens: int) -> torch.Tensor:
    """Views (rows * tokens) x heads x head_dim as rows x heads x tokens x head_dim."""
    return y.view(-1, tokens, *y.shape[1:]).transpose(1, 2)


def _flat(attended: torch.Tensor) -> torch.Tensor:
    """Reshapes rows x heads x tokens x head_dim to (rows * tokens) x (heads * head_dim)."""
    return attended.transpose(1, 2).reshape(-1, attended.shape[1] * attended.shape[3])
