"""Counts the bytes of frozen weights, whole or one card's part of them, and of adapters in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainables.base_model.shape import ModelShape
from trainables.limits import ABSMAX_BLOCK, FP32_BYTES, NF4_BLOCK
from trainables.memory.setting import AdapterLoad, MemorySetting, Pass

FROZEN = ("base_linears", "embedding_and_head", "norms")  # components that are frozen weights
NF4_TABLES_BYTES = 2048  # of a linear layer: NF4's 16 values, the 8-bit code's 256, the offset, as allocated


@dataclass(frozen=True)
class ModelPart:
    """The part of a model that one card holds: all of it, or some of its layers where several cards share it.

    `above` counts the model's layers that come after this part's.
    """

    layers: int
    has_embedding: bool = True
    has_head: bool = True
    above: int = 0

    def among_last(self, count: int | None) -> int:
        """Counts this part's layers that are among the model's last `count`; None: all of this part's."""
        return self.layers if count is None else min(self.layers, max(0, count - self.above))

    def adapted(self, load: AdapterLoad) -> int:
        """Counts this part's layers that carry the adapter: the lowest of those that its backward pass reaches."""
        if load.layers is None or load.reached is None:
            return self.among_last(load.reached)
        return self.among_last(load.reached) - self.among_last(load.reached - load.layers)

    def reached(self, one: Pass) -> int:
        """Counts this part's layers that the backward pass of any adapter goes through; all where there is none."""
        return max((self.among_last(load.reached) for load in one.loads), default=self.layers)


def base_components(shape: ModelShape, setting: MemorySetting, part: ModelPart) -> dict[str, int]:
    """Returns the frozen weights' bytes by name; only the layers' linear weights may be quantized."""
    linears = part.layers * sum(linear_bytes(inward * outward, setting) for inward, outward in shape.linears.values())
    skipped = sum(inward * outward * setting.weight_bytes for inward, outward in shape.skipped_linears)
    skipped -= sum(linear_bytes(inward * outward, setting) for inward, outward in shape.skipped_linears)
    tied_here = shape.tie_word_embeddings and part.has_embedding and part.has_head
    tables = 1 if tied_here else int(part.has_embedding) + int(part.has_head)
    others = shape.other_parameters * part.layers // shape.layers
    return {
        "base_linears": linears + skipped * part.layers // shape.layers,
        "embedding_and_head": tables * shape.embedding_parameters * setting.weight_bytes,
        "norms": others * setting.weight_bytes,
    }


def linear_bytes(values: int, setting: MemorySetting) -> int:
    """Returns the bytes of a frozen linear weight of so many values.

    NF4 (Dettmers et al. 2023, arXiv 2305.14314): half a byte a value, and one absmax for each block of 64 values. With
    double quantization an absmax is one byte, and each 256 of them share one of fp32: 0.5 + 1 / 64 + 4 / (64 x 256)
    bytes a value, 4.127 bits; without, 0.5 + 4 / 64 bytes, 4.5 bits.
    """
    if setting.precision != "nf4":
        return values * setting.weight_bytes
    blocks = -(-values // NF4_BLOCK)
    absmax = blocks + FP32_BYTES * -(-blocks // ABSMAX_BLOCK) if setting.double_quantization else FP32_BYTES * blocks
    return -(-values // 2) + absmax + NF4_TABLES_BYTES


def state_components(shape: ModelShape, loads: Sequence[AdapterLoad], part: ModelPart) -> dict[str, int]:
    """Returns the bytes of every trainable number's weight, gradient and two moments of AdamW, all fp32."""
    numbers = sum(
        shape.adapter_parameters(load.rank, load.target_modules) // shape.layers * part.adapted(load) for load in loads
    )
    weights = FP32_BYTES * numbers
    return {"adapter_weights": weights, "gradients": weights, "optimizer_state": 2 * weights}
