"""Compiles the kernels of a model's training before its weights are there: calls each on a few numbers.

Triton compiles a kernel at its first launch, once for each form of its arguments: types, constants, and which sizes,
strides and addresses are multiples of 16. All of that follows from a model's widths, and nothing from how many tokens
a pass has. What does is compiled when it comes: sizes of 2^31 and more numbers, target tokens of a chunk of logits that
begins at an odd place, and an adapter's rows at an odd place, where a row's bytes are no multiple of 16.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainables.kernels import elementwise
from trainables.kernels.elementwise import Activation

_EPS = 1e-6  # any: no form depends on it
_TOKENS = 16  # a multiple of 16; of widths that are none, n x width is one or not, so there is another number
_OTHER_TOKENS = 3


@dataclass(frozen=True)
class LayerWidths:
    """What the kernels of a decoder with a form are compiled for: widths, and which branches its layers take."""

    hidden: int
    intermediate: int
    heads: int
    key_heads: int
    head_dim: int
    turned: tuple[int | None, ...]  # numbers of a head that turn, of each kind of layer; None where none do
    fp32_angles: bool  # whether cos and sin are, whatever the hidden states are
    activation: Activation
    joined_qkv: bool  # whether one linear layer puts out queries, keys and values
    joined_gate_up: bool
    norm_after_block: bool
    norm_offset: float
    head_norms: tuple[int, ...]  # widths of the norms of queries and keys


@dataclass(frozen=True)
class ModelWidths:
    """What all kernels of a model's training are compiled for; `layer` is None where transformers' layers compute."""

    linear_inputs: tuple[int, ...]  # of linear layers that an adapter may update: dropout's widths
    vocabulary: int
    divisor: float
    cap: float | None
    layer: LayerWidths | None


def compile_ahead(widths: ModelWidths, dtype: torch.dtype, device: torch.device) -> None:
    """Calls every elementwise operation as a training pass, and an evaluation, in `dtype` does."""
    _losses(widths, torch.empty(0, dtype=dtype, device=device))
    _dropout(widths, torch.empty(0, dtype=dtype, device=device))
    if widths.layer is not None:
        _norms(widths.layer, torch.empty(0, dtype=dtype, device=device))
        _mlp(widths.layer, torch.empty(0, dtype=dtype, device=device))
        _rotations(widths.layer, torch.empty(0, dtype=dtype, device=device))


def _losses(widths: ModelWidths, like: torch.Tensor) -> None:
    targets = torch.zeros(2, dtype=torch.int64, device=like.device)
    for gradient in (True, False):
        logits = like.new_zeros(2, widths.vocabulary)
        elementwise.softmax_nats(logits, targets, 1.0, gradient, widths.divisor, widths.cap)


def _dropout(widths: ModelWidths, like: torch.Tensor) -> None:
    number = torch.zeros(1, dtype=torch.int64, device=like.device)
    rate = torch.zeros(1, device=like.device)
    for width in dict.fromkeys(widths.linear_inputs):
        x = like.new_zeros(2, width)
        for total in (None, torch.zeros_like(x)):
            elementwise.thin(x, number, number, rate, 0, 2, total)


def _norms(layer: LayerWidths, like: torch.Tensor) -> None:
    for width, in_block in ((layer.hidden, True), *((width, False) for width in dict.fromkeys(layer.head_norms))):
        x, weight = like.new_zeros(2, width), like.new_zeros(width)
        elementwise.rms_norm(x, weight, _EPS, layer.norm_offset)
        residuals = [x] if in_block else []
        for residual in (*residuals, *([None] if layer.norm_after_block or not in_block else [])):
            elementwise.rms_norm_backward(x, x, weight, _EPS, residual, layer.norm_offset)


def _mlp(layer: LayerWidths, like: torch.Tensor) -> None:
    width = layer.intermediate
    for tokens in (_TOKENS,) if width % 16 == 0 else (_TOKENS, _OTHER_TOKENS):
        gate, up = _parts(like, tokens, (width, width), layer.joined_gate_up)
        elementwise.gated(gate, up, layer.activation)
        for activated in (True, False):
            elementwise.gated_backward(like.new_zeros(tokens, width), gate, up, activated, layer.activation)


def _rotations(layer: LayerWidths, like: torch.Tensor) -> None:
    widths = [count * layer.head_dim for count in (layer.heads, layer.key_heads, layer.key_heads)]
    whole = (_TOKENS, layer.heads, layer.head_dim)
    for turned in layer.turned:
        angle_type = torch.float32 if layer.fp32_angles else like.dtype
        cos = sin = None if turned is None else like.new_zeros(_TOKENS, turned, dtype=angle_type)
        parts = _parts(like, _TOKENS, widths, layer.joined_qkv)
        q, k, v = (part.view(_TOKENS, -1, layer.head_dim) for part in parts)
        if layer.head_norms:  # whose results stand alone
            q, k = (like.new_zeros(part.shape) for part in (q, k))
        elementwise.rotate(q, k, v, cos, sin)
        dq, dk, dv = (like.new_zeros(whole) for _ in range(3))
        elementwise.rotate_backward(dq, dk, dv, cos, sin, layer.heads // layer.key_heads)


def _parts(like: torch.Tensor, tokens: int, widths: tuple[int, ...] | list[int], joined: bool) -> list[torch.Tensor]:
    """Returns outputs of linear layers: each by itself, or as parts of one."""
    if joined:
        return list(like.new_zeros(tokens, sum(widths)).split(list(widths), dim=-1))
    return [like.new_zeros(tokens, width) for width in widths]
