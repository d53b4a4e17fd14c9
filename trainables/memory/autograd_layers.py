"""Counts the bytes that transformers' own layers keep under autograd, and those of their backward.

For the models that the fused layers do not serve; n, d, a, k, f and e as in `trainables.memory.fused_layers`. Autograd
keeps every operation's inputs that its backward reads.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from trainables.base_model.shape import ModelShape
from trainables.limits import FP32_BYTES
from trainables.memory.attention_kernels import (
    Heads,
    attention_workspace,
    plain_attention_forward,
    plain_attention_kept,
)
from trainables.memory.fused_layers import DOWN, GATE_UP, QKV, Moment
from trainables.memory.setting import AdapterLoad, MemorySetting, Pass
from trainables.memory.updates import low_rank

ATTENTION, MLP = (*QKV, "o_proj"), (*GATE_UP, *DOWN)  # targets of a layer's two blocks


def layer_inputs(shape: ModelShape, setting: MemorySetting, one: Pass, layers: int) -> int:
    """Returns the bytes of all layers' inputs, n d e each; without checkpointing none, norms keep them in fp32."""
    if not setting.gradient_checkpointing:
        return 0
    return layers * one.tokens * shape.hidden_size * setting.compute_bytes


def kept_by_layer(shape: ModelShape, setting: MemorySetting, one: Pass) -> int:
    """Returns the bytes that a layer's backward reads beside its input: the attention's and the MLP's."""
    return _kept_by_attention(shape, setting, one) + _kept_by_mlp(shape, setting, one)


def kept_by_update(shape: ModelShape, setting: MemorySetting, one: Pass, load: AdapterLoad) -> int:
    """Returns the bytes that a layer keeps for one adapter: low-rank parts, and their targets' inputs."""
    return sum(_of_targets(shape, setting, one.part_of(load), targets) for targets in (ATTENTION, MLP))


def _kept_by_attention(shape: ModelShape, setting: MemorySetting, one: Pass) -> int:
    """Returns what the attention block keeps.

    An fp32 copy of the norm's input (4 d bytes), and with norms of heads theirs (4 (a + k)); rotated queries and keys,
    values and the attention's output (2 a + 2 k) e, or 4 a e where keys and values are repeated, and its log-sum-exp.
    """
    n, a, k, e = one.tokens, shape.query_size, shape.key_size, setting.compute_bytes
    kept = n * FP32_BYTES * (shape.hidden_size + (a + k if shape.has_head_norms else 0))
    if setting.attention == "math":
        kept += plain_attention_kept(Heads.of(shape), one) + n * a * e
    else:
        keys = k if setting.attention in ("flash", "cpu") else a
        kept += n * ((2 * a + 2 * keys) * e + FP32_BYTES * shape.attention_heads)
    return kept


def _kept_by_mlp(shape: ModelShape, setting: MemorySetting, one: Pass) -> int:
    """Returns what the MLP block keeps: an fp32 copy of the norm's input (4 d), and gate, its SiLU and up (3 f e)."""
    return one.tokens * (FP32_BYTES * shape.hidden_size + 3 * shape.intermediate_size * setting.compute_bytes)


def _of_targets(shape: ModelShape, setting: MemorySetting, one: Pass, targets: Collection[str]) -> int:
    """Returns what the block keeps for its targets: their low-rank parts, and what these read.

    That is the norm's output (d e) and the product before down_proj (f e); the attention's output is there already.
    """
    return low_rank(shape, setting, one, targets) + _inputs(shape, setting, one, targets)


def backward_moments(shape: ModelShape, setting: MemorySetting, one: Pass) -> Mapping[str, Moment]:
    """Returns the bytes that a layer's backward needs beside what was kept, at each moment that may be its highest.

    `mlp`: gradients of the product, of SiLU's output and of up (3 f), and two hidden states' (2 d); where down_proj is
    a target without dropout, the product itself was kept and is freed by then (f). `attention`: what the MLP kept is
    freed; gradients of the residual (d), of the attention's output (a), of queries, keys and values (3 a), and what the
    kernel needs. `attention_forward`, of plain mathematics: all scores, queries and keys before and after rotation, and
    values, before the MLP keeps anything. `head_norm`: five fp32 tensors of the queries' size (20 a bytes).
    """
    n, d, a, f, e = one.tokens, shape.hidden_size, shape.query_size, shape.intermediate_size, setting.compute_bytes
    freed = sum(load.rows * one.width for load in one.loads if "down_proj" in load.target_modules and not load.dropout)
    no_mlp = _kept_by_mlp(shape, setting, one) + _of_targets(shape, setting, one, MLP)
    attention = n * (d + 4 * a) * e + attention_workspace(Heads.of(shape), setting, one) - no_mlp
    moments = {"mlp": Moment((n * (2 * d + 3 * f) - freed * f) * e, d * f), "attention": Moment(attention)}
    if setting.attention == "math":
        rows = n * (2 * a + 3 * shape.key_size) * e
        moments["attention_forward"] = Moment(plain_attention_forward(Heads.of(shape), one) + rows - no_mlp)
    if shape.has_head_norms:
        moments["head_norm"] = Moment(5 * FP32_BYTES * n * a)
    return moments


def _inputs(shape: ModelShape, setting: MemorySetting, one: Pass, targets: Collection[str]) -> int:
    """Returns the bytes of what these targets' low-rank products read, each input once without dropout; with dropout,
    for each target a mask and what it leaves."""
    groups = ((QKV, shape.hidden_size), (GATE_UP, shape.hidden_size), (DOWN, shape.intermediate_size))
    plain = sum(
        load.rows * one.width * width
        for load in one.loads
        for names, width in groups
        if not load.dropout and any(name in load.target_modules for name in names if name in targets)
    )
    thinned = sum(
        2 * load.rows * one.width * shape.linears[name][0]
        for load in one.loads
        if load.dropout
        for name in load.target_modules
        if name in targets
    )
    return (plain + thinned) * setting.compute_bytes
