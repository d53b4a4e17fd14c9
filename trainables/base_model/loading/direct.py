"""Loads a model whose files hold its own tensors, without the detours of transformers' `from_pretrained`."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel

from trainables.base_model.checks.safetensors_header import Tensor, read_header
from trainables.base_model.checks.weight_files import weight_files
from trainables.base_model.loading.configuration import folder_config
from trainables.base_model.loading.placement import CPU, Placement
from trainables.base_model.loading.skeleton import (
    build_skeleton,
    compute_in,
    fill,
    four_bit_layers,
    is_plain,
    quantize,
    wanted_tensors,
)
from trainables.base_model.loading.tensors import DTYPES, Headers, map_tensors, read_into, read_tensors
from trainables.base_model.streaming.layer_block import stand_in

STATE = ".quant_state."  # in the name of a small tensor that says how a weight was quantized; read by the processor

_DECODER_LAYER = re.compile(r".*?\.\d+(?=\.)")  # `model.layers.3` of `model.layers.3.mlp.up_proj.weight`


def load_directly(folder: Path, placement: Placement, dtype: torch.dtype | None) -> PreTrainedModel | None:
    """Loads the folder's model to where it belongs; `dtype` None takes the type that its configuration names.

    The tensors are those that `from_pretrained` loads, bit by bit. Returns None where that one is needed: tensors have
    other names or shapes than the model's, or a type of their own. Raises BaseModelError and OSError for broken files.
    """
    config = folder_config(folder, dtype)
    dtype = dtype or config.dtype
    if dtype is None:
        return None
    model = build_skeleton(config, dtype)
    headers, layers = _headers(folder), four_bit_layers(model)
    if not is_plain(model) or not _match(headers, model, layers):
        return None
    dtypes = _dtypes(_whole(model, layers), dtype)
    waiting = _waiting(model, placement)
    states = _choose(headers, lambda name: STATE in name)
    resident = _choose(headers, lambda name: STATE not in name and name not in waiting)
    streamed = _choose(headers, waiting.__contains__)
    stand_ins = {
        name: stand_in(entry.shape, dtypes.get(name, DTYPES[entry.dtype]), placement.device_of(name))
        for header in streamed.values()
        for name, entry in header.items()
    }
    read = _read(resident, dtypes, placement, placement.on_host(model))
    fill(model, {**read, **stand_ins, **map_tensors(states, {})}, placement.device_of, folder)
    read_into(placement.reserve(model), streamed, CPU)
    compute_in(model, dtype)
    return model


def quantize_directly(
    folder: Path, placement: Placement, dtype: torch.dtype, quantization: BitsAndBytesConfig
) -> PreTrainedModel | None:
    """Loads the folder's 16-bit model to where it belongs in 4 bits; what is not quantized has the type `dtype`.

    All tensors, those of quantization too, are those of `from_pretrained` with the same `quantization`, bit by bit.
    Beside what is quantized, one decoder layer's weights at most are there whole; one that is streamed moves into its
    block as soon as it is quantized. Returns and raises as `load_directly`.
    """
    model = _quantized_skeleton(folder, dtype, quantization)
    headers, layers = _headers(folder), four_bit_layers(model)
    if not is_plain(model) or not _match(headers, model, {}):
        return None
    dtypes, on_host = _dtypes(wanted_tensors(model), dtype), placement.on_host(model)

    def read(choice: Callable[[str], bool]) -> dict[str, torch.Tensor]:
        return _read(_choose(headers, choice), dtypes, placement, on_host)

    fill(model, read(lambda name: name not in layers), placement.device_of, folder)
    _quantize_layers(model, read, placement)
    return model


def quantize_loaded(
    folder: Path, source: PreTrainedModel, placement: Placement, quantization: BitsAndBytesConfig
) -> PreTrainedModel:
    """Quantizes a model that transformers has loaded onto the CPU, as `quantize_directly` does; empties `source`."""
    dtype = source.dtype
    model = _quantized_skeleton(folder, dtype, quantization)
    layers, on_host = four_bit_layers(model), placement.on_host(model)
    buffers, tensors = dict(source.named_buffers()), source.state_dict()
    source.to("meta")

    def take(choice: Callable[[str], bool]) -> dict[str, torch.Tensor]:
        chosen = [name for name in tensors if choice(name)]
        return {name: tensors.pop(name).to(CPU if name in on_host else placement.device_of(name)) for name in chosen}

    fill(model, take(lambda name: name not in layers), placement.device_of, folder)
    for name, buffer in model.named_buffers():  # those that no file holds, as transformers has made them
        buffer.copy_(buffers[name])
    _quantize_layers(model, take, placement)
    return model


def _quantized_skeleton(folder: Path, dtype: torch.dtype, quantization: BitsAndBytesConfig) -> PreTrainedModel:
    config = folder_config(folder)
    config.quantization_config = quantization
    return build_skeleton(config, dtype, quantized_files=False)


def _quantize_layers(
    model: PreTrainedModel, read: Callable[[Callable[[str], bool]], dict[str, torch.Tensor]], placement: Placement
) -> None:
    """Quantizes each decoder layer's weights, which `read` brings to their device, where it stays or is streamed."""
    layers, streamed = four_bit_layers(model), placement.streamed(model)
    for names in _by_decoder_layer(layers):
        weights = read(names.__contains__)
        for name in names:
            quantize(layers[name], weights.pop(name), placement.device_of(name))
        for number, (path, layer) in streamed.items():
            if names[0].startswith(f"{path}."):
                placement.take(number, path, layer)


def _waiting(model: PreTrainedModel, placement: Placement) -> frozenset[str]:
    """Returns the names of the files' tensors that a block holds."""
    return frozenset(
        f"{path}.{linear}.weight{statistic}"
        for path, layer in placement.streamed(model).values()
        for linear, module in layer.named_modules()
        if isinstance(module, nn.Linear)
        for statistic in ("", ".absmax", ".nested_absmax")
    )


def _headers(folder: Path) -> Headers:
    return {path: read_header(path) for path in weight_files(folder)}


def _by_decoder_layer(names: Iterable[str]) -> Iterator[list[str]]:
    for _, of_layer in groupby(names, lambda name: found[0] if (found := _DECODER_LAYER.match(name)) else name):
        yield list(of_layer)


def _choose(headers: Headers, choice: Callable[[str], bool]) -> Headers:
    return {path: {name: entry for name, entry in header.items() if choice(name)} for path, header in headers.items()}


def _dtypes(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.dtype]:
    """Returns the type that each tensor is loaded in; those without fractions keep their own."""
    return {name: dtype for name, tensor in tensors.items() if tensor.is_floating_point()}


def _read(
    headers: Headers, dtypes: Mapping[str, torch.dtype], placement: Placement, on_host: Collection[str]
) -> dict[str, torch.Tensor]:
    """Reads each tensor onto its device; those of `on_host` on the CPU."""
    where = {
        name: CPU if name in on_host else placement.device_of(name) for header in headers.values() for name in header
    }
    tensors: dict[str, torch.Tensor] = {}
    for device in dict.fromkeys(where.values()):
        here = _choose(headers, {name for name, place in where.items() if place == device}.__contains__)
        tensors |= map_tensors(here, dtypes) if device.type == "cpu" else read_tensors(here, dtypes, device)
    return tensors


def _whole(model: PreTrainedModel, layers: Collection[str]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in wanted_tensors(model).items() if name not in layers}


def _match(headers: Headers, model: PreTrainedModel, layers: Mapping[str, object]) -> bool:
    """Whether the files hold every tensor of the model once, no other, in its shape and a type that is read here.

    `layers` are those whose weights are quantized in the files, by the names of their weights.
    """
    found: dict[str, Tensor] = {name: entry for header in headers.values() for name, entry in header.items()}
    statistics = {name for name in found if _weight_of(name, layers)}
    whole = _whole(model, layers)
    return (
        len(found) == sum(map(len, headers.values()))
        and found.keys() - statistics == whole.keys() | layers.keys()
        and all(found[name].shape == tuple(tensor.shape) for name, tensor in whole.items())
        and all(entry.dtype in DTYPES for entry in found.values())
        and {_weight_of(name, layers) for name in statistics if STATE in name} == set(layers)
    )


def _weight_of(name: str, layers: Mapping[str, object]) -> str | None:
    """Returns the name of the quantized weight that a tensor such as `q_proj.weight.absmax` belongs to."""
    weight, found, _ = name.partition(".weight.")
    return f"{weight}.weight" if found and f"{weight}.weight" in layers else None
