"""Counts the bytes of layers' frozen linear weights: on the card, and in a layer's block in host memory.

NF4 (Dettmers et al. 2023, arXiv 2305.14314): half a byte a value, and one absmax for each block of 64 values. With
double quantization an absmax is one byte, and each 256 of them share one of fp32: 0.5 + 1 / 64 + 4 / (64 x 256) bytes a
value, 4.127 bits; without, 0.5 + 4 / 64 bytes, 4.5 bits.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

from trainables.base_model.shape import ModelShape
from trainables.limits import ABSMAX_BLOCK, ALIGNED_BYTES, FP32_BYTES, NF4_BLOCK
from trainables.memory.offload import STREAM_BUFFERS, streamed_layers
from trainables.memory.setting import MemorySetting

NF4_TABLES_BYTES = 2048  # of a linear layer: NF4's 16 values, the 8-bit code's 256, the offset, as allocated


def linear_bytes(values: int, setting: MemorySetting) -> int:
    """Returns the bytes of a frozen linear weight of so many values, its quantization's tables with it."""
    if setting.precision != "nf4":
        return values * setting.weight_bytes
    return sum(_nf4_tensors(values, setting.double_quantization)) + NF4_TABLES_BYTES


def layers_linear_bytes(shape: ModelShape, setting: MemorySetting, layers: range) -> int:
    """Returns the bytes of these layers' linear weights on the card; of streamed ones the tables alone are there.

    What a checkpoint in 4 bits has left in 16 is spread evenly over the layers.
    """
    whole = sum(linear_bytes(inward * outward, setting) for inward, outward in shape.linears.values())
    skipped = sum(inward * outward * setting.weight_bytes for inward, outward in shape.skipped_linears)
    skipped -= sum(linear_bytes(inward * outward, setting) for inward, outward in shape.skipped_linears)
    streamed = sum(_moved_bytes(shape, setting, layer) for layer in streamed_among(shape, setting, layers))
    return whole * len(layers) + skipped * len(layers) // shape.layers - streamed


def streamed_among(shape: ModelShape, setting: MemorySetting, layers: Collection[int]) -> tuple[int, ...]:
    """Returns which of these layers wait in host memory."""
    count = min(setting.offload.layers, shape.layers)
    return tuple(layer for layer in streamed_layers(count, shape.layers) if layer in layers)


def block_bytes(shape: ModelShape, setting: MemorySetting, layer: int) -> int:
    """Returns the bytes of a layer's block in host memory, each tensor padded (`LayerBlock`)."""
    return sum(_blocks(shape, setting.precision, setting.weight_bytes, setting.double_quantization)[layer])


def stream_buffer_bytes(shape: ModelShape, setting: MemorySetting, layers: Collection[int]) -> int:
    """Returns the bytes of the buffers through which these layers' blocks come to their card, each as the largest."""
    sizes = [block_bytes(shape, setting, layer) for layer in streamed_among(shape, setting, layers)]
    return min(STREAM_BUFFERS, len(sizes)) * max(sizes, default=0)


def _moved_bytes(shape: ModelShape, setting: MemorySetting, layer: int) -> int:
    """Returns the bytes that leave the card with a layer: all but tables."""
    return sum(
        sum(_tensors(values, quantized, setting.weight_bytes, setting.double_quantization))
        for values, quantized in _values(shape, setting.precision)[layer]
    )


@lru_cache(maxsize=64)
def _blocks(
    shape: ModelShape, precision: str, weight_bytes: int, double_quantization: bool
) -> tuple[tuple[int, ...], ...]:
    """Returns each layer's padded tensors."""
    return tuple(
        tuple(
            -(-size // ALIGNED_BYTES) * ALIGNED_BYTES
            for values, quantized in of_layer
            for size in _tensors(values, quantized, weight_bytes, double_quantization)
        )
        for of_layer in _values(shape, precision)
    )


@lru_cache(maxsize=64)
def _values(shape: ModelShape, precision: str) -> tuple[tuple[tuple[int, bool], ...], ...]:
    """Returns each layer's linear weights: how many values, and whether they are quantized."""
    sizes = [inward * outward for inward, outward in shape.linears.values()]
    if precision != "nf4" or not shape.skipped_linears:
        return (tuple((size, precision == "nf4") for size in sizes),) * shape.layers
    assert shape.four_bit is not None
    quantized = [shape.four_bit.quantizes(name) for name in shape.linear_names]
    starts = range(0, len(quantized), len(sizes))
    return tuple(tuple(zip(sizes, quantized[start : start + len(sizes)], strict=True)) for start in starts)


def _tensors(values: int, quantized: bool, weight_bytes: int, double_quantization: bool) -> tuple[int, ...]:
    return _nf4_tensors(values, double_quantization) if quantized else (values * weight_bytes,)


def _nf4_tensors(values: int, double_quantization: bool) -> tuple[int, ...]:
    """Returns the bytes of a weight's halves of bytes, its absmax, and with double quantization that of its absmax."""
    blocks = -(-values // NF4_BLOCK)
    halves = -(-values // 2)
    if not double_quantization:
        return halves, FP32_BYTES * blocks
    return halves, blocks, FP32_BYTES * -(-blocks // ABSMAX_BLOCK)
