"""Counts the bytes that the fused layers of a pass keep, and those of each moment of their backward.

Follows `trainables.packed.fused`, tensor by tensor. In the formulas n is the pass' tokens (rows times the
longest), d, a, k and f are the widths of hidden states, of all heads' queries, of all heads' keys, and between gate and
down projection; e is the bytes of an activation. Low-rank intermediates are n x rank for each target, and each
adapter's weights are cast to e. What differs between families follows from their forms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainables.base_model.shape import ModelShape
from trainables.limits import FP32_BYTES, logits_chunk_rows
from trainables.memory.attention_kernels import (
    Heads,
    attention_workspace,
    is_masked,
    kernel_of,
    plain_attention_forward,
    plain_attention_kept,
)
from trainables.memory.setting import AdapterLoad, MemorySetting, Pass
from trainables.memory.updates import low_rank, low_rows, masks, thinned

QKV, GATE_UP, DOWN = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("down_proj",)
MASK_COLUMNS = 8  # a mask's rows begin at multiples of it


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

    The residual (d), and the output of a norm before each block (d); queries, keys and values with one of each for
    every query head (3 a), the attention's output (a) and its log-sum-exp (one fp32 for each head), gate and up (2 f):
    with both norms n (3 d + 4 a + 2 f) e. Queries and keys before their norms (a + k). A joined projection's output is
    kept whole (a + 2 k), beside keys and values that are repeated (2 a). A block's product, where a norm follows (d);
    the MLP's is computed again with checkpointing.
    """
    heads = Heads.of(shape)
    width = _hidden_widths(shape, setting) * shape.hidden_size + heads.query_size + 2 * shape.intermediate_size
    width += _heads_width(shape) + (heads.query_size + heads.key_size if shape.has_head_norms else 0)
    kernel = kernel_of(shape, setting, one)
    softmax = 0 if kernel == "capped" else one.tokens * heads.count * FP32_BYTES
    kept = one.tokens * width * setting.compute_bytes
    return kept + (plain_attention_kept(heads, one) if kernel == "math" else softmax)


def _hidden_widths(shape: ModelShape, setting: MemorySetting) -> int:
    """Counts the tensors of hidden states' width that a layer keeps beside its input."""
    norms = shape.family.norms
    again = setting.gradient_checkpointing
    kept = (norms.before_attention, norms.after_attention, norms.before_mlp, None if again else norms.after_mlp)
    return 1 + sum(name is not None for name in kept)


def _heads_width(shape: ModelShape) -> int:
    """Returns the numbers of a token's queries, keys and values that a layer keeps."""
    a, k = shape.query_size, shape.key_size
    if len(shape.family.qkv) == len(QKV):
        return 3 * a
    return a + 2 * k + (2 * a if k < a else 0)


def kept_by_update(shape: ModelShape, setting: MemorySetting, one: Pass, load: AdapterLoad) -> int:
    """Returns the bytes that a layer keeps for one adapter: the low-rank parts of all targets but down_proj."""
    own, targets = one.part_of(load), (*shape.family.qkv, "o_proj", *shape.family.gate_up)
    return low_rank(shape, setting, own, targets) + masks(shape, setting, own, targets)


def backward_moments(shape: ModelShape, setting: MemorySetting, one: Pass) -> Mapping[str, Moment]:
    """Returns the bytes that a layer's backward needs beside what was kept, at each moment that may be its highest."""
    return {**_mlp_moments(shape, setting, one), **_attention_moments(shape, setting, one)}


def _mlp_moments(shape: ModelShape, setting: MemorySetting, one: Pass) -> Mapping[str, Moment]:
    """Returns the moments of an MLP's backward.

    The gradient of the layer's output is there throughout (d), and where the MLP's own is normalized or scaled that of
    its product (d), as long as down_proj is a target. `product`: what down_proj reads (f) and its product (d), computed
    again. `down`: the gradient between gate and down (f); with dropout at down_proj, before the frozen product, the
    update's part and its thinned copy (2 f). Then gradients of gate and up, and the product between them, take the
    place of what was there. `down_weights`: with dropout, down_proj's input thinned again for its weights' gradient
    (f). `gate_up`: their input's gradient (d), with dropout two parts of it (2 d).
    """
    n, e, d, f = one.tokens, setting.compute_bytes, shape.hidden_size, shape.intermediate_size
    gate_up_names, low_of_down = shape.family.gate_up, low_rank(shape, setting, one, DOWN)
    of_product = d if shape.family.norms.after_mlp or shape.family.residual_scale_key else 0
    stays = of_product if any(name in load.target_modules for load in one.loads for name in DOWN) else 0
    down = n * (d + of_product + f) * e + low_of_down + masks(shape, setting, one, DOWN)
    gate_up = n * (2 * d + stays) * e + low_rows(setting, one, gate_up_names)
    product = {"product": Moment(n * (2 * d + f) * e + low_of_down, d * f)}
    return {
        **(product if shape.family.norms.after_mlp and setting.gradient_checkpointing else {}),
        "down": Moment(down, d * f),
        "down_thinned": Moment(down + 2 * f * e * thinned(one, DOWN)),
        "down_weights": Moment(down + low_rows(setting, one, DOWN) + f * e * thinned(one, DOWN)),
        "gate_up": Moment(gate_up, max(shape.linears[name][1] for name in gate_up_names) * d),
        "gate_up_thinned": Moment(gate_up + 2 * d * e * thinned(one, gate_up_names)),
    }


def _attention_moments(shape: ModelShape, setting: MemorySetting, one: Pass) -> Mapping[str, Moment]:
    """Returns the moments of an attention block's backward, which follows the MLP's.

    The gradients of the layer's output and of the residual are there throughout (2 d), and where the block's own is
    normalized or scaled that of its product (d). `attention`: the gradient of the attention's output (a), of queries,
    keys and values (3 a), and what the kernel needs. `joined`: those of a joined projection's parts, and of its output
    (2 a + 4 k). `qkv`: the attention's (a), queries', keys' and values' (a + 2 k), and their input's (d), with dropout
    two parts of it (2 d). `input_norm`: the gradient of the layer's input as well (d).
    """
    n, e, names = one.tokens, setting.compute_bytes, shape.family.qkv
    d, a, k, f = shape.hidden_size, shape.query_size, shape.key_size, shape.intermediate_size
    norms, kernel = shape.family.norms, kernel_of(shape, setting, one)
    there = n * (2 * d + (d if norms.after_attention or shape.family.residual_scale_key else 0)) * e
    there += low_rows(setting, one, (*shape.family.gate_up, "o_proj"))  # gradients of A x, until the layer is done
    heads = a if kernel == "math" else 4 * a  # its scores are gone when there are gradients of heads
    qkv = there + n * (d + 2 * a + 2 * k) * e + low_rows(setting, one, names)
    later = n * (2 * d + 2 * f) * e  # of the MLP: not there yet when scores are computed
    plain = {"attention_forward": Moment(plain_attention_forward(Heads.of(shape), one) - later)}
    is_joined = len(names) < len(QKV)
    weights = sum(sorted((outward * d for outward in (shape.linears[name][1] for name in names)), reverse=True)[:2])
    return {
        **(plain if kernel == "math" else {}),
        "attention": Moment(there + n * heads * e + _in_attention(shape, setting, one)),
        **({"joined": Moment(there + n * (3 * a + 4 * k) * e)} if is_joined else {}),
        "qkv": Moment(qkv, weights),
        "qkv_thinned": Moment(qkv + 2 * d * e * thinned(one, names)),
        "input_norm": Moment(qkv + (n * d * e if norms.before_attention else 0)),
    }


def small_tensors(shape: ModelShape, setting: MemorySetting, one: Pass) -> int:
    """Returns the bytes of what a pass has once.

    Token ids (8 bytes a token), targets' ids, places and nats (20 a target), rotary angles (2 head_dim e a column), a
    window's mask (e for each pair of columns).
    """
    angles = 2 * one.width * shape.head_dim * setting.compute_bytes
    columns = -(-one.width // MASK_COLUMNS) * MASK_COLUMNS
    mask = one.width * columns * setting.compute_bytes if is_masked(shape, one) else 0
    return 8 * one.tokens + 20 * one.targets + angles + mask


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
    heads (2 k), and those of queries and keys before their norms (a + k)."""
    summed = 2 * shape.key_size if shape.key_size < shape.query_size else 0
    normalized = shape.query_size + shape.key_size if shape.has_head_norms else 0
    workspace = attention_workspace(Heads.of(shape), kernel_of(shape, setting, one), setting, one)
    return max(workspace, one.tokens * (summed + normalized) * setting.compute_bytes)
