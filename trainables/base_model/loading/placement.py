"""Says where each tensor of a model belongs: on a device, or in the block of a layer that is streamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from trainables.base_model.checks.faults import BaseModelError
from trainables.base_model.streaming.host_memory import check_room
from trainables.base_model.streaming.layer_block import LayerBlock, block_bytes, stand_in
from trainables.memory.offload import RESIDENT, Offload, streamed_layers

Places = Mapping[str, Any]  # transformers' device map: names of modules to devices

CPU = torch.device("cpu")


@dataclass
class Placement:
    """Where a model's tensors are loaded to; `blocks` is filled as it is loaded, by the layers' numbers."""

    places: Places
    offload: Offload = RESIDENT
    blocks: dict[int, LayerBlock] = field(default_factory=dict)

    @property
    def at_once(self) -> bool:
        """Whether all of the model is on one device."""
        return list(self.places) == [""]

    def device_of(self, name: str) -> torch.device:
        """Returns the device of the module or tensor of this name, where it is not in host memory."""
        while name and name not in self.places:
            name = name.rpartition(".")[0]
        place = self.places[name]
        device = torch.device("cuda", place) if isinstance(place, int) else torch.device(place)
        if str(device) == "cuda":  # by its number, so that it equals its tensors' own
            return torch.device("cuda", torch.cuda.current_device())
        return device

    def streamed(self, model: PreTrainedModel) -> dict[int, tuple[str, nn.Module]]:
        """Returns the layers that wait in host memory by their numbers, each with its name in the model."""
        if not self.offload.layers:
            return {}
        layers = decoder_layers(model)
        return {number: layers[number] for number in streamed_layers(self.offload.layers, len(layers))}

    def on_host(self, model: PreTrainedModel) -> frozenset[str]:
        """Returns the names of those tensors that stay on the CPU as they are: the embedding's, where it waits there.

        Raises BaseModelError where the head shares them.
        """
        if not self.offload.embedding:
            return frozenset()
        if model.config.tie_word_embeddings:
            raise BaseModelError(
                "an embedding that waits in host memory must not be shared; this model's head shares it, and computes "
                "with it in every step. Leave it on the card."
            )
        embedding = model.get_input_embeddings()
        (path,) = (name for name, module in model.named_modules() if module is embedding)
        return frozenset(f"{path}.{name}" for name, _ in embedding.named_parameters())

    def reserve(self, model: PreTrainedModel) -> dict[str, torch.Tensor]:
        """Makes blocks of the streamed layers, whose tensors are stand-ins; returns what is to be read, by full names.

        Raises BaseModelError where host memory has no room for them.
        """
        layers = self.streamed(model)
        check_room(sum(block_bytes(layer) for _, layer in layers.values()))
        wanted: dict[str, torch.Tensor] = {}
        for number, (path, layer) in layers.items():
            self.blocks[number] = LayerBlock.unfilled(layer, self.device_of(path))
            wanted |= {f"{path}.{key}": view for key, view in self.blocks[number].views().items()}
        return wanted

    def take(self, number: int, path: str, layer: nn.Module) -> None:
        """Moves a layer that is on its device into a block. Raises BaseModelError where host memory has no room."""
        check_room(block_bytes(layer))
        self.blocks[number] = LayerBlock(layer, self.device_of(path), pinned=False)

    def pin(self) -> None:
        """Lets cards copy the blocks by themselves. Raises BaseModelError where that is refused."""
        for block in self.blocks.values():
            if block.device.type == "cuda":
                block.pin()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Shows each streamed layer's tensors where they lie in host memory, to be written, not computed with."""
        for block in self.blocks.values():
            block.show_in(block.block)
        try:
            yield
        finally:
            for block in self.blocks.values():
                block.hide()

    @contextmanager
    def set_aside(self, model: PreTrainedModel) -> Iterator[None]:
        """Keeps what stays on the CPU from whatever moves a model's tensors to their devices meanwhile."""
        aside = {name: model.get_parameter(name) for name in self.on_host(model)}
        for name, parameter in aside.items():
            place = stand_in(parameter.shape, parameter.dtype, self.device_of(name))
            _put(model, name, nn.Parameter(place, requires_grad=False))
        try:
            yield
        finally:
            for name, parameter in aside.items():
                _put(model, name, parameter)


def decoder_layers(model: PreTrainedModel) -> list[tuple[str, nn.Module]]:
    """Returns a model's decoder layers in their order, each with its name. Raises BaseModelError for other models."""
    count = model.config.get_text_config().num_hidden_layers
    decoder: Any = model.get_decoder()
    for modules in decoder.modules():
        if isinstance(modules, nn.ModuleList) and len(modules) == count:
            prefix = next(name for name, module in model.named_modules() if module is modules)
            return [(f"{prefix}.{number}", layer) for number, layer in enumerate(modules)]
    raise BaseModelError(
        f"a model of which layers wait in host memory must have its {count} layers in one list; {type(model).__name__} "
        "has none such. Choose a larger card, a smaller model, or hardware.base_in_host_memory: never."
    )


def _put(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    owner, _, leaf = name.rpartition(".")
    model.get_submodule(owner)._parameters[leaf] = parameter
