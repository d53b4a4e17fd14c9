"""Counts the bytes that transformers' own layers keep under autograd, and those of their backward.

For the models that the fused layers do not serve; n, d, a, k, f and e as in `trainables.memory.fused_layers`. Autograd
keeps every operation's inputs that its backward reads.
"""

from __future__ import annotations

from collections.abc import Mapping

from search_spaces.trial_config import MODULE_NAMES
from trainables.base_model.shape import ModelShape
from trainables.limits import FP32_BYTES
from trainables.memory.fused_layers import GATE_UP, QKV, Moment, low_rank
from trainables.memory.setting import MemorySetting, Pass


def layer_inputs(shape: ModelShape, setting: MemorySetting, one: Pass, layers: int) -> int:
    """Returns the bytes of all layers' inputs, n d e each; without checkpointing none, norms keep them in fp32."""
    if not setting.gradient_checkpointing:
        return 0
    return layers * one.tokens * shape.hidden_size * setting.compute_bytes


def kept_by_layer(shape: ModelShape, setting: MemorySetting, one: Pass) -> int:
    """Returns the bytes that a layer's backward reads beside its input.

    fp32 copies of two norms' inputs (8 d bytes), and with norms of heads theirs (4 (a + k)); rotated queries and keys,
    values and the attention's output (2 a + 2 k) e and its log-sum-exp; gate, its SiLU, and up (3 f e); the low-rank
    parts of all targets, and their inputs: a norm's output (d e) or the product before down_proj (f e), each once
    without dropout; with dropout, for each target a mask and what it leaves.
    """
    n, d, a, k, f = one.tokens, shape.hidden_size, shape.query_size, shape.key_size, shape.intermediate_size
    heads_normed = FP32_BYTES * (a + k) if shape.has_head_norms else 0
    in_fp32 = 2 * FP32_BYTES * d + heads_normed + FP32_BYTES * shape.attention_heads
    kept = n * (in_fp32 + (2 * a + 2 * k + 3 * f) * setting.compute_bytes)
    kept += low_rank(shape, setting, one, MODULE_NAMES)
    return kept + _inputs(shape, setting, one) + _scores(shape, setting, one)


def backward_moments(shape: ModelShape, setting: MemorySetting, one: Pass) -> Mapping[str, Moment]:
    """Returns the bytes that a layer's backward needs beside what was kept, at each moment that may be its highest.

    In the MLP: gradients of the product, of SiLU's output and of up (3 f), and two hidden states' (2 d). Where
    down_proj is a target without dropout, the product itself was kept and is freed by then (f). Where heads are
    normalized, that norm's backward has five fp32 tensors of the queries' size (20 a bytes).
    """
    d, f = shape.hidden_size, shape.intermediate_size
    freed = sum(load.rows * one.width for load in one.loads if "down_proj" in load.target_modules and not load.dropout)
    mlp = Moment((one.tokens * (2 * d + 3 * f) - freed * f) * setting.compute_bytes, d * f)
    if not shape.has_head_norms:
        return {"mlp": mlp}
    return {"mlp": mlp, "head_norm": Moment(5 * FP32_BYTES * one.tokens * shape.query_size)}


def _inputs(shape: ModelShape, setting: MemorySetting, one: Pass) -> int:
    groups = ((QKV, shape.hidden_size), (GATE_UP, shape.hidden_size), (("down_proj",), shape.intermediate_size))
    plain = sum(
        load.rows * one.width * width
        for load in one.loads
        for names, width in groups
        if not load.dropout and any(name in load.target_modules for name in names)
    )
    thinned = sum(
        2 * load.rows * one.width * shape.linears[name][0]
        for load in one.loads
        if load.dropout
        for name in load.target_modules
    )
    return (plain + thinned) * setting.compute_bytes


def _scores(shape: ModelShape, setting: MemorySetting, one: Pass) -> int:
    """Returns the bytes of all scores' softmax, tokens x tokens for each row and head in fp32, which plain
    mathematics keeps."""
    if setting.attention != "math":
        return 0
    return FP32_BYTES * one.rows * shape.attention_heads * one.width**2
