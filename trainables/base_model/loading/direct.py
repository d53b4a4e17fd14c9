"""Loads a model whose files hold its own tensors, without the detours of transformers' `from_pretrained`."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from trainables.base_model.checks.safetensors_header import Tensor, read_header
from trainables.base_model.checks.weight_files import weight_files
from trainables.base_model.loading.configuration import folder_config
from trainables.base_model.loading.skeleton import (
    build_skeleton,
    compute_in,
    fill,
    four_bit_layers,
    is_plain,
    quantize,
    wanted_tensors,
)
from trainables.base_model.loading.tensors import DTYPES, Headers, map_tensors, read_tensors

STATE = ".quant_state."  # in the name of a small tensor that says how a weight was quantized; read by the processor

_DECODER_LAYER = re.compile(r".*?\.\d+(?=\.)")  # `model.layers.3` of `model.layers.3.mlp.up_proj.weight`


def load_directly(folder: Path, device: torch.device, dtype: torch.dtype | None) -> PreTrainedModel | None:
    """Loads the folder's model onto one device; `dtype` None takes the type that its configuration names.

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
    states, rest = _choose(headers, lambda name: STATE in name), _choose(headers, lambda name: STATE not in name)
    fill(model, {**_read(rest, dtypes, device), **map_tensors(states, {})}, device, folder)
    compute_in(model, dtype)
    return model


def quantize_directly(
    folder: Path, device: torch.device, dtype: torch.dtype, quantization: BitsAndBytesConfig
) -> PreTrainedModel | None:
    """Loads the folder's 16-bit model onto one device in 4 bits; what is not quantized has the type `dtype`.

    All tensors, those of quantization too, are those of `from_pretrained` with the same `quantization`, bit by bit.
    Beside what is quantized, one decoder layer's weights at most are there whole. Returns and raises as
    `load_directly`.
    """
    config = folder_config(folder)
    config.quantization_config = quantization
    model = build_skeleton(config, dtype, quantized_files=False)
    headers, layers = _headers(folder), four_bit_layers(model)
    if not is_plain(model) or not _match(headers, model, {}):
        return None
    dtypes = _dtypes(wanted_tensors(model), dtype)
    fill(model, _read(_choose(headers, lambda name: name not in layers), dtypes, device), device, folder)
    for names in _by_decoder_layer(layers):
        weights = _read(_choose(headers, names.__contains__), dtypes, device)
        for name in names:
            quantize(layers[name], weights.pop(name), device)
    return model


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


def _read(headers: Headers, dtypes: Mapping[str, torch.dtype], device: torch.device) -> dict[str, torch.Tensor]:
    return map_tensors(headers, dtypes) if device.type == "cpu" else read_tensors(headers, dtypes, device)


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
