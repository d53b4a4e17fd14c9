"""Counts the bytes that the fused layers of a pass keep, and those of each moment of their backward.

Follows `trainables.packed.fused`, tensor by tensor. In the formulas n is the pass' tokens (rows times the
longest), d, a, k and f are the widths of hidden states, of all heads' queries, of all heads' keys, and between gate and
down projection; e is the bytes of an activation. Low-rank intermediates are n x rank for each target, and each
adapter's weights are cast to e.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainables.base_model.shape import ModelShape
from trainables.limits import FP32_BYTES, logits_chunk_rows
from trainables.memory.attention_kernels import (
    Heads,
    attention_workspace,
    plain_attention_forward,
    plain_attention_kept,
)
from trainables.memory.setting import AdapterLoad, MemorySetting, Pass
from trainables.memory.updates import low_rank, low_rows, masks, thinned

QKV, GATE_UP, DOWN = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("down_proj",)


@dataclass(frozen=True)
class Moment:
    """A moment of a layer's backward: bytes of the rows, and the values of frozen weights that are dequantized then."""

    rows_bytes: int
    weight_values: int = 0


def layer_inputs(shape: ModelShape, setting: MemorySetting, one: Pass, layers: int) -> int:
    """Returns the bytes of all layers' inputs, n d e each, which are kept with checkpointing and without."""
    return layers * one.tokens * shape.hidden_size * setting.compute_bytes


def kept_by_layer(shape: ModelShape, setting: MemorySetting, one: Pass) -> int:
    """Returns the bytes that a layer's backward reads beside its input; with checkpointing, of one layer at a time.

    Two norms' outputs and the residual (3 d), queries, keys and values with one of each for every query head (3 a), the
    attention's output (a) and its log-sum-exp (one fp32 for each head), gate and up (2 f): n (3 d + 4 a + 2 f) e.
    """
    width = 3 * shape.hidden_size + 4 * shape.query_size + 2 * shape.intermediate_size
    softmax = one.tokens * shape.attention_heads * FP32_BYTES
    kept = one.tokens * width * setting.compute_bytes
    return kept + (plain_attention_kept(Heads.of(shape), one) if setting.attention == "math" else softmax)


def kept_by_update(shape: ModelShape, setting: MemorySetting, one: Pass, load: AdapterLoad) -> int:
    """Returns the bytes that a layer keeps for one adapter: the low-rank parts of all targets but down_proj."""
    own, targets = one.part_of(load), (*QKV, "o_proj", *GATE_UP)
    return low_rank(shape, setting, own, targets) + masks(shape, setting, own, targets)


def backward_moments(shape: ModelShape, setting: MemorySetting, one: Pass) -> Mapping[str, Moment]:
    """Returns the bytes that a layer's backward needs beside what was kept, at each moment that may be its highest.

    The gradient of the layer's output is there throughout (d). `down`: the gradient between gate and down (f); with
    dropout at down_proj, before the frozen product, the update's part and its thinned copy (2 f). Then gradients of
    gate and up, and the product between them, take the place of what was there. `down_weights`: with dropout,
    down_proj's input thinned again for its weights' gradient (f). `gate_up`: their input's gradient (d), with dropout
    two parts of it (2 d). `attention`: the residual's gradient (d), that of the attention's output (a), of queries,
    keys and values (3 a), and what the kernel needs. `qkv`: the residual's (d), the attention's (a), queries', keys'
    and values' (a + 2 k), and their input's (d), with dropout two parts of it (2 d). `input_norm`: the gradient of the
    layer's input as well (d).
    """
    n, e = one.tokens, setting.compute_bytes
    d, a, k, f = shape.hidden_size, shape.query_size, shape.key_size, shape.intermediate_size
    down = n * (d + f) * e + low_rank(shape, setting, one, DOWN) + masks(shape, setting, one, DOWN)
    gate_up = 2 * n * d * e + low_rows(setting, one, GATE_UP)
    after_mlp = low_rows(setting, one, (*GATE_UP, "o_proj"))  # gradients of A x stay until the layer is done
    heads = a if setting.attention == "math" else 4 * a  # its scores are gone when there are gradients of heads
    attention = n * (2 * d + heads) * e + _in_attention(shape, setting, one) + after_mlp
    qkv = n * (3 * d + 2 * a + 2 * k) * e + after_mlp + low_rows(setting, one, QKV)
    plain = {"attention_forward": Moment(plain_attention_forward(Heads.of(shape), one) - 2 * n * (d + f) * e)}
    return {
        **(plain if setting.attention == "math" else {}),
        "down": Moment(down, d * f),
        "down_thinned": Moment(down + 2 * f * e * thinned(one, DOWN)),
        "down_weights": Moment(down + low_rows(setting, one, DOWN) + f * e * thinned(one, DOWN)),
        "gate_up": Moment(gate_up, d * f),
        "gate_up_thinned": Moment(gate_up + 2 * d * e * thinned(one, GATE_UP)),
        "attention": Moment(attention),
        "qkv": Moment(qkv, d * a + d * k),
        "qkv_thinned": Moment(qkv + 2 * d * e * thinned(one, QKV)),
        "input_norm": Moment(qkv + n * d * e),
    }


def small_tensors(shape: ModelShape, setting: MemorySetting, one: Pass) -> int:
    """Returns the bytes of what a pass has once.

    Token ids (8 bytes a token), targets' ids, places and nats (20 a target), rotary angles (2 head_dim e a column).
    """
    angles = 2 * one.width * shape.head_dim * setting.compute_bytes
    return 8 * one.tokens + 20 * one.targets + angles


def loss_rows(shape: ModelShape, setting: MemorySetting, one: Pass) -> int:
    """Returns the bytes of rows at the loss.

    The last hidden states (n d e), and those before targets with their gradient (2 d e a target).
    """
    return (one.tokens + 2 * one.targets) * shape.hidden_size * setting.compute_bytes


def loss_chunk(shape: ModelShape, setting: MemorySetting, targets: int | None) -> int:
    """Returns the bytes of one chunk's logits, in the head's type; `targets` None: of a full chunk."""
    rows = logits_chunk_rows(shape.vocab_size, setting.compute_bytes)
    there = rows if targets is None else min(targets, rows)
    return there * shape.vocab_size * setting.compute_bytes


def _in_attention(shape: ModelShape, setting: MemorySetting, one: Pass) -> int:
    """Returns the bytes inside the attention's backward, or after it keys' and values' gradients summed to their own
    heads (2 k)."""
    summed = 2 * one.tokens * shape.key_size * setting.compute_bytes if shape.key_size < shape.query_size else 0
    return max(attention_workspace(Heads.of(shape), setting, one), summed)
