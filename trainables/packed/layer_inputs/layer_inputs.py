"""Decides where the layers' inputs of a training pass wait for its backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch.autograd.graph import saved_tensors_hooks

from trainables.packed.layer_inputs.kept_pass import KeptPass, Lane

SMALLEST_BYTES = 2**20  # of an input that is worth a copy


class LayerInputs:
    """On the card, as autograd keeps them."""

    @contextmanager
    def of_pass(self, numbers: int) -> Iterator[AbstractContextManager[object]]:
        """Goes round a pass, forward and backward; yields what goes round its forward part.

        `numbers` counts those of one layer's input: rows x tokens x hidden.
        """
        yield nullcontext()


class LayerInputsInHostMemory(LayerInputs):
    """In host memory: each goes there while the layers after it compute, and comes back one layer ahead.

    Under gradient checkpointing they are all that is kept of a layer, by the fused layers and by transformers' alike.
    Autograd is told by hooks: they take what has a layer input's size and a gradient of its own. So two are on the card
    at a time, and that of the lowest layer that an adapter updates, below which no gradient goes.
    """

    def __init__(self, smallest_bytes: int = SMALLEST_BYTES) -> None:
        """Inputs of less than `smallest_bytes` stay on the card."""
        self._smallest_bytes = smallest_bytes
        self._lanes: dict[torch.device, Lane] = {}

    @contextmanager
    def of_pass(self, numbers: int) -> Iterator[AbstractContextManager[object]]:
        """Goes round a pass, forward and backward; yields what goes round its forward part."""
        kept = KeptPass(self._lanes, lambda tensor: self._takes(tensor, numbers))
        try:
            yield saved_tensors_hooks(kept.pack, kept.unpack)
        finally:
            kept.end()

    def _takes(self, tensor: torch.Tensor, numbers: int) -> bool:
        comes_from_a_layer = tensor.requires_grad and not tensor.is_leaf
        of_its_size = tensor.numel() == numbers and tensor.nbytes >= self._smallest_bytes
        return comes_from_a_layer and of_its_size and tensor.is_contiguous()


def layer_inputs(in_host_memory: bool) -> LayerInputs:
    """Returns the place where they wait."""
    return LayerInputsInHostMemory() if in_host_memory else LayerInputs()
