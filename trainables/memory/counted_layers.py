"""Predicts the bytes of layers that nobody described from those that were counted of one (`shape.counted`).

Counted are the frozen layer's own, under an attention that keeps what FlashAttention does. Adapters' and other
attentions' bytes are formulas. Linear layers that read the same tensor keep it once where an adapter updates any of
them, and each target's A x (n rank e); n is the pass' tokens, a and k are the widths of all heads' queries and keys, e
the bytes of an activation.
"""

from __future__ import annotations

from collections.abc import Mapping

from trainables.base_model.probe.counted_layer import CountedBytes, CountedLayer, ReadTogether
from trainables.base_model.shape import ModelShape
from trainables.limits import FP32_BYTES
from trainables.memory.attention_kernels import (
    Heads,
    attention_workspace,
    plain_attention_forward,
    plain_attention_kept,
)
from trainables.memory.fused_layers import Moment
from trainables.memory.setting import AdapterLoad, MemorySetting, Pass
from trainables.memory.updates import casts, low_rows, thinned

LAST_NORM_TENSORS = 6  # of fp32, in the backward of transformers' RMS norms: the input, and gradients


def layer_inputs(shape: ModelShape, setting: MemorySetting, one: Pass, layers: int) -> int:
    """Returns the bytes of all layers' inputs, n d e each, where layers or checkpointing keep them."""
    if not (setting.gradient_checkpointing or _bytes(shape, setting).keeps_input):
        return 0
    return layers * one.tokens * shape.hidden_size * setting.compute_bytes


def kept_by_layer(shape: ModelShape, setting: MemorySetting, one: Pass) -> int:
    """Returns the bytes that a layer's backward reads beside its input, those of what its targets read with them."""
    counted = _bytes(shape, setting)
    read = sum(group.width for group in _updated(counted, one) if not group.is_kept)
    own = counted.kept.bytes_at(one.rows, one.width)
    return own + _kept_by_kernel(shape, setting, one) + one.tokens * read * setting.compute_bytes


def kept_by_update(shape: ModelShape, setting: MemorySetting, one: Pass, load: AdapterLoad) -> int:
    """Returns the bytes that a layer keeps for one adapter: A x of its targets."""
    return low_rows(setting, one.part_of(load), load.target_modules)


def backward_moments(shape: ModelShape, setting: MemorySetting, one: Pass) -> Mapping[str, Moment]:
    """Returns the bytes that a layer's backward needs beside what was kept, at each moment that may be its highest.

    Where a frozen weight is used, so are adapters': of the targets that read the same, weights cast to e, gradients of
    A x, and with dropout two parts of the input's gradient. `last_norm`: that of the last layer's output, before any
    layer's backward, with six fp32 tensors of its size.
    """
    counted, in_kernel = _bytes(shape, setting), _in_kernel(shape, setting, one)
    not_there = kept_by_layer(shape, setting, one) if setting.gradient_checkpointing else 0
    found = {"last_norm": Moment(LAST_NORM_TENSORS * FP32_BYTES * one.tokens * shape.hidden_size - not_there)}
    for number, moment in enumerate(counted.moments):
        rows = moment.beside_kept.bytes_at(one.rows, one.width) + in_kernel.get(moment.attends or "", 0)
        name = moment.linear
        values = 0
        if name is not None:
            rows += sum(_of_group(shape, setting, one, group) for group in counted.inputs if group.holds(name))
            inward, outward = next(size for short, size in shape.linears.items() if f".{name}".endswith(f".{short}"))
            values = inward * outward
        found[f"layer_{number}"] = Moment(rows, values)
    return found


def prompt_bytes(shape: ModelShape, setting: MemorySetting, tokens: int) -> int:
    """Returns the bytes of one layer's forward pass over a row without a backward, its input with them."""
    most = max(moment.beside_kept.bytes_at(1, tokens) for moment in _bytes(shape, setting).prompt)
    return most + tokens * shape.hidden_size * setting.compute_bytes


def cached_width(shape: ModelShape) -> int:
    """Counts the numbers that a layer's keys have for a token of a text that is generated."""
    attending = _counted(shape).attending
    return shape.hidden_size if attending is None else attending.key_heads * attending.head_dim


def small_tensors(shape: ModelShape, setting: MemorySetting, one: Pass) -> int:
    """Returns the bytes of what a pass has once: masks and angles, token ids (8 a token), targets (20 each)."""
    return _bytes(shape, setting).shared.bytes_at(one.rows, one.width) + 8 * one.tokens + 20 * one.targets


def _counted(shape: ModelShape) -> CountedLayer:
    assert shape.counted is not None
    return shape.counted


def _bytes(shape: ModelShape, setting: MemorySetting) -> CountedBytes:
    return _counted(shape).of(setting.compute_bytes)


def _heads(shape: ModelShape) -> Heads | None:
    attending = _counted(shape).attending
    return None if attending is None else Heads(attending.heads, attending.key_heads, attending.head_dim)


def _updated(counted: CountedBytes, one: Pass) -> list[ReadTogether]:
    """Lists what the pass' targets read."""
    targets = {name for load in one.loads for name in load.target_modules}
    return [group for group in counted.inputs if any(group.holds(name) for name in targets)]


def _of_group(shape: ModelShape, setting: MemorySetting, one: Pass, group: ReadTogether) -> int:
    targets = {name for load in one.loads for name in load.target_modules if group.holds(name)}
    parts = 2 * thinned(one, targets) * group.width * setting.compute_bytes
    return casts(shape, setting, one, targets) + low_rows(setting, one, targets) + parts


def _kept_by_kernel(shape: ModelShape, setting: MemorySetting, one: Pass) -> int:
    """Returns what the attention keeps beside what FlashAttention does: (2 a + 2 k) e, and log-sum-exp in fp32.

    Keys and values repeated for all query heads, for a kernel that needs it or takes the mask; of plain mathematics
    what it keeps, and its output.
    """
    heads, attending = _heads(shape), _counted(shape).attending
    if heads is None or attending is None:
        return 0
    n, a, k, e = one.tokens, heads.query_size, heads.key_size, setting.compute_bytes
    if setting.attention == "math":
        flash = (a + 2 * k) * e + FP32_BYTES * heads.count
        return plain_attention_kept(heads, one) - n * flash
    repeated = setting.attention == "memory_efficient" or (setting.attention == "flash" and attending.masked)
    return 2 * n * (a - k) * e if repeated else 0


def _in_kernel(shape: ModelShape, setting: MemorySetting, one: Pass) -> dict[str, int]:
    """Returns the bytes within the attention, forward and backward, of a layer that attends by torch's."""
    heads = _heads(shape)
    if heads is None:
        return {}
    forward = plain_attention_forward(heads, one) if setting.attention == "math" else 0
    repeated = 2 * one.tokens * (heads.query_size - heads.key_size) * setting.compute_bytes
    gradients = repeated if _kept_by_kernel(shape, setting, one) else 0
    return {"forward": forward, "backward": attention_workspace(heads, setting.attention, setting, one) + gradients}
