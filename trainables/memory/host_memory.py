"""Counts the host memory that a training needs for what waits there (`trainables.memory.offload`)."""

from __future__ import annotations

from collections.abc import Sequence

from trainables.base_model.shape import ModelShape
from trainables.memory.frozen_linears import block_bytes, streamed_among
from trainables.memory.moments import inputs_leave, layer_input_bytes
from trainables.memory.optimizer_states import moment_bytes
from trainables.memory.setting import AdapterLoad, MemorySetting, Pass
from trainables.memory.weights import ModelPart


def host_bytes(shape: ModelShape, setting: MemorySetting, loads: Sequence[AdapterLoad]) -> int:
    """Returns the bytes of host memory that a host needs for what waits there; 0 where everything is resident."""
    return sum(host_components(shape, setting, loads).values())


def host_components(shape: ModelShape, setting: MemorySetting, loads: Sequence[AdapterLoad]) -> dict[str, int]:
    """Returns by name the bytes of host memory that the base model and these adapters need there.

    Once for the node, however many cards share the model: blocks of the streamed layers; the embedding where it is not
    the head too, with rows on their way to the card; every adapter's moments; and of a pass of all loads what layers
    above the lowest keep under checkpointing, with the last one's output.
    """
    part, offload = ModelPart(shape.layers), setting.offload
    of_moments = [moment_bytes(shape, setting, load, part.adapted(load)) for load in loads]
    one = Pass(tuple(loads))
    embedding = 0 if shape.tie_word_embeddings else shape.embedding_parameters * setting.weight_bytes
    looked_up = one.tokens * shape.hidden_size * setting.weight_bytes
    rows = pinned_bytes(looked_up) if setting.leaves_device else looked_up
    of_layer = layer_input_bytes(shape, setting, one, 1)
    blocks = [block_bytes(shape, setting, layer) for layer in streamed_among(shape, setting, part.range_in(shape))]
    return {
        "streamed_layers": sum(blocks),
        "embedding": embedding + rows if offload.embedding and embedding else 0,
        "optimizer_state": sum(of_moments) if offload.optimizer_state else 0,
        "layer_inputs": of_layer * part.reached(one) if inputs_leave(setting) else 0,
    }


def pinned_bytes(size: int) -> int:
    """Returns what torch takes of host memory for one pinned tensor: the next power of two.

    torch 2.13, `ATen/core/CachingHostAllocator.h`. Blocks of layers, moments and layers' inputs are locked without it,
    and take what they need.
    """
    return 1 << (size - 1).bit_length() if size else 0
