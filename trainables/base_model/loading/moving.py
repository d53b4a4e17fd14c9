"""Moves a model that was loaded onto the CPU to where it belongs, and lets it compute across several cards."""

from __future__ import annotations

import torch
from accelerate import dispatch_model
from torch import nn
from transformers import PreTrainedModel

from trainables.base_model.loading.placement import Placement


def move(model: PreTrainedModel, placement: Placement) -> None:
    """Moves a model from the CPU to its devices; streamed layers by way of theirs, one at a time, into their blocks."""
    moved: dict[int, nn.Parameter] = {}  # tied parameters are one
    for number, (path, layer) in placement.streamed(model).items():
        _move(layer, path, placement, frozenset(), moved)
        placement.take(number, path, layer)
    _move(model, "", placement, placement.on_host(model), moved)


def _move(
    root: nn.Module, path: str, placement: Placement, staying: frozenset[str], moved: dict[int, nn.Parameter]
) -> None:
    for below, module in root.named_modules():
        name = ".".join(filter(None, (path, below)))
        for leaf, parameter in module._parameters.items():
            full = f"{name}.{leaf}" if name else leaf
            device = placement.device_of(full)
            if parameter is None or full in staying or _is_on(parameter, device):
                continue
            if id(parameter) not in moved:
                moved[id(parameter)] = _moved(parameter, device)
            module._parameters[leaf] = moved[id(parameter)]
        for leaf, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[leaf] = buffer.to(placement.device_of(name))


def _moved(parameter: nn.Parameter, device: torch.device) -> nn.Parameter:
    there = parameter.to(device)  # a 4-bit weight's own `to` moves its quantization too
    return there if isinstance(there, nn.Parameter) else nn.Parameter(there, parameter.requires_grad)


def _is_on(parameter: nn.Parameter, device: torch.device) -> bool:
    return parameter.device.type == device.type and device.index in (None, parameter.device.index)


def spread(model: PreTrainedModel, placement: Placement) -> PreTrainedModel:
    """Lets hidden states follow a model's layers from card to card, as transformers does; returns it."""
    if len(set(placement.places.values())) > 1:
        with placement.set_aside(model):
            dispatch_model(model, dict(placement.places), skip_keys=model._skip_keys_device_placement)
    return model
