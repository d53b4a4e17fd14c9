"""Lets parts of a benchmark's model and training wait in host memory, as a host does; and configurations of both."""

from __future__ import annotations

from typing import Any

import torch

from trainables.base_model.streaming.layer_block import LayerBlock
from trainables.memory.offload import RESIDENT, Offload, streamed_layers
from trainables.packed.packed_model import PackedModel

EVERYTHING = Offload(10**6, embedding=True, optimizer_state=True, layer_inputs=True)
# What waits, the optimizer, rank, targets, dropout, rows, tokens; all with checkpointing.
CONFIGURATIONS = (
    (Offload(10**6), "adamw", 16, "all_linear", False, 1, 512), (Offload(10**6), "adamw", 16, "q_v", True, 4, 1024),
    (Offload(16), "adamw", 16, "all_linear", True, 4, 512), (Offload(2), "adamw", 8, "q_v", False, 1, 512),
    (Offload(10**6, embedding=True), "adamw", 64, "all_linear", False, 2, 2048),
    (Offload(embedding=True), "adamw", 8, "q_v", True, 1, 1024),
    (Offload(optimizer_state=True), "adamw", 128, "all_linear", False, 1, 512),
    (Offload(optimizer_state=True), "adamw", 16, "all_linear", True, 4, 1024),
    (Offload(optimizer_state=True), "adamw_8bit", 64, "all_linear", False, 2, 512),
    (RESIDENT, "adamw_8bit", 128, "all_linear", False, 1, 512), (RESIDENT, "adamw_8bit", 4, "q_v", True, 4, 1024),
    (Offload(layer_inputs=True), "adamw", 16, "all_linear", False, 1, 8192),
    (Offload(layer_inputs=True), "adamw", 32, "q_v", True, 8, 2048),
    (Offload(10**6, layer_inputs=True), "adamw", 32, "all_linear", False, 1, 16384),
    (EVERYTHING, "adamw", 16, "all_linear", True, 4, 2048), (EVERYTHING, "adamw_8bit", 64, "q_v", False, 1, 4096),
)  # fmt: skip


def packed(causal: Any, offload: Offload, device: torch.device) -> PackedModel:
    """Returns a model of which layers, embedding and layers' inputs wait in host memory; it is changed in place."""
    if offload.is_none:
        return PackedModel(causal)
    from trainables.packed.layer_inputs.layer_inputs import layer_inputs

    pinned, layers = device.type == "cuda", causal.get_decoder().layers
    count = min(offload.layers, len(layers))
    blocks = {at: LayerBlock(layers[at], device, pinned) for at in streamed_layers(count, len(layers))}
    if offload.embedding:
        _embed_from_host(causal, device)
    model = PackedModel(causal, **({"blocks": blocks} if blocks else {}))
    model.layer_inputs = layer_inputs(offload.layer_inputs)
    return model


def _embed_from_host(causal: Any, device: torch.device) -> None:
    from trainables.base_model.streaming.host_embedding import embed_from_host

    embedding = causal.get_input_embeddings()
    if causal.get_output_embeddings().weight is not embedding.weight:
        embedding.weight.data = embedding.weight.data.cpu()
    embed_from_host(causal, device)


def staged(offload: Offload, device: torch.device) -> dict[str, Any]:
    """What a `TrainingMember` is given beside the rest where its moments wait in host memory."""
    if not offload.optimizer_state:
        return {}
    from trainables.packed.optimizers.staging import Staging

    return {"staging": Staging(devices=(device,))}


def words(offload: Offload) -> str:
    """What waits, in a few words: `12 layers, inputs`."""
    named = {"embedding": offload.embedding, "moments": offload.optimizer_state, "inputs": offload.layer_inputs}
    layers = [f"{offload.layers} layers"] if offload.layers else []
    return ", ".join([*layers, *(name for name, waits in named.items() if waits)]) or "all resident"
