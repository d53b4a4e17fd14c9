"""Makes a base model of random weights whose layers are in host memory, and any count of them on the card."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from tests.benchmarks.support.capped_training import set_checkpointing
from tests.benchmarks.support.random_models import Weights, assemble, drawn_weights, skeleton
from trainables.base_model.loading.placement import decoder_layers
from trainables.base_model.streaming.host_embedding import embed_from_host
from trainables.base_model.streaming.layer_block import LayerBlock
from trainables.memory.offload import streamed_layers
from trainables.packed.packed_model import PackedModel

EMBEDDING = "model.embed_tokens.weight"


@dataclass(frozen=True)
class HostBase:
    """Random weights: all decoder layers' in blocks of host memory, an untied embedding's too, others on the device."""

    shape: str
    device: torch.device
    dtype: torch.dtype
    weights: Weights
    blocks: dict[int, LayerBlock]

    @property
    def tied(self) -> bool:
        """Whether the head is the embedding."""
        return "lm_head.weight" not in self.weights


def host_base(shape: str, device: torch.device, dtype: torch.dtype, nf4: bool) -> HostBase:
    """Draws a model layer by layer, so that one layer at most is on the device beside what stays there."""
    model = skeleton(shape)
    layers = decoder_layers(model)
    weights: Weights = {}
    blocks: dict[int, LayerBlock] = {}
    for name, parameter in drawn_weights(shape, device, dtype, nf4):
        weights[name] = parameter
        path, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(path), leaf, parameter)
        for number, (prefix, layer) in enumerate(layers):
            if number not in blocks and not any(one.is_meta for one in layer.parameters()):
                assert name.startswith(prefix)
                blocks[number] = LayerBlock(layer, device, pinned=device.type == "cuda")
    base = HostBase(shape, device, dtype, weights, blocks)
    if not base.tied:
        weights[EMBEDDING].data = weights[EMBEDDING].data.cpu()
    return base


@contextmanager
def arranged(base: HostBase, streamed: int, embedding: bool, fused: bool = True) -> Iterator[PackedModel]:
    """Gives the model with so many layers streamed and all others on the device, with gradient checkpointing.

    `embedding`: it is looked up in host memory, where it is not tied.
    """
    _empty(base.device)
    chosen = streamed_layers(streamed, len(base.blocks))
    try:
        for number in sorted(base.blocks.keys() - set(chosen)):
            there = torch.empty(base.blocks[number].nbytes, dtype=torch.uint8, device=base.device)
            base.blocks[number].copy_to(there)
            base.blocks[number].show_in(there)
        table = base.weights[EMBEDDING].data
        on_host = embedding and not base.tied
        own = nn.Parameter(table if on_host else table.to(base.device), requires_grad=False)
        model = assemble(base.shape, {**base.weights, EMBEDDING: own}, base.device, base.dtype)
        if on_host:
            embed_from_host(model, base.device)
        set_checkpointing(model, True)
        yield PackedModel(model, fused, blocks={number: base.blocks[number] for number in chosen})
    finally:
        for block in base.blocks.values():
            block.hide()


def _empty(device: torch.device) -> None:
    gc.collect()  # layers and what wraps them know each other
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
