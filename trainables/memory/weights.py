"""Counts the bytes of frozen weights, whole or one card's part of them, and of adapters in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from trainables.base_model.shape import ModelShape
from trainables.limits import FP32_BYTES
from trainables.memory.frozen_linears import layers_linear_bytes, stream_buffer_bytes
from trainables.memory.offload import RESIDENT
from trainables.memory.optimizer_states import moment_bytes
from trainables.memory.setting import AdapterLoad, MemorySetting, Pass

# Components that are frozen weights, or have room for them, from the start to the end.
FROZEN = ("base_linears", "embedding_and_head", "norms", "stream_buffers")


@dataclass(frozen=True)
class ModelPart:
    """The part of a model that one card holds: all of it, or some of its layers where several cards share it.

    `above` counts the model's layers that come after this part's.
    """

    layers: int
    has_embedding: bool = True
    has_head: bool = True
    above: int = 0

    def range_in(self, shape: ModelShape) -> range:
        """The numbers of its layers in the model."""
        stop = shape.layers - self.above
        return range(stop - self.layers, stop)

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
    """Returns the frozen weights' bytes by name; only the layers' linear weights may be quantized.

    What waits in host memory is not among them; a CPU's device is its host memory, where all of it stays.
    """
    layers = part.range_in(shape)
    buffers = stream_buffer_bytes(shape, setting, layers)
    if not setting.leaves_device:
        setting = replace(setting, offload=RESIDENT)
    tied = shape.tie_word_embeddings
    tables = 1 if tied and part.has_embedding and part.has_head else int(part.has_embedding) + int(part.has_head)
    away = int(setting.offload.embedding and part.has_embedding and not tied)
    others = shape.other_parameters * part.layers // shape.layers
    return {
        "base_linears": layers_linear_bytes(shape, setting, layers),
        "embedding_and_head": (tables - away) * shape.embedding_parameters * setting.weight_bytes,
        "norms": others * setting.weight_bytes,
        "stream_buffers": buffers,
    }


def state_components(
    shape: ModelShape, loads: Sequence[AdapterLoad], part: ModelPart, setting: MemorySetting | None = None
) -> dict[str, int]:
    """Returns the bytes of every trainable number's weight, gradient and two moments of AdamW.

    All fp32, but moments as the setting's optimizer keeps them; none where they wait in host memory. Without a setting
    they are there in fp32.
    """
    carried = [(load, part.adapted(load)) for load in loads]
    weights = FP32_BYTES * sum(
        shape.adapter_parameters(load.rank, load.target_modules) // shape.layers * layers for load, layers in carried
    )
    if setting is None:
        moments = 2 * weights
    elif setting.offload.optimizer_state and setting.leaves_device:
        moments = 0
    else:
        moments = sum(moment_bytes(shape, setting, load, layers) for load, layers in carried)
    return {"adapter_weights": weights, "gradients": weights, "optimizer_state": moments}
