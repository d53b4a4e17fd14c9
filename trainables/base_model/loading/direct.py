"""Loads a model whose files hold its own tensors, without the detours of transformers' `from_pretrained`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import AutoConfig, PreTrainedModel

from trainables.base_model.checks.safetensors_header import Tensor, read_header
from trainables.base_model.checks.weight_files import weight_files
from trainables.base_model.loading.skeleton import build_skeleton, fill, four_bit_layers, is_plain, wanted_tensors
from trainables.base_model.loading.tensors import DTYPES, Headers, map_tensors, read_tensors

STATE = ".quant_state."  # in the name of a small tensor that says how a weight was quantized; read by the processor


def load_directly(folder: Path, device: torch.device, dtype: torch.dtype | None) -> PreTrainedModel | None:
    """Loads the folder's model onto one device; `dtype` None takes the type that its configuration names.

    The tensors are those that `from_pretrained` loads, bit by bit. Returns None where that one is needed: tensors have
    other names or shapes than the model's, or a type of their own. Raises BaseModelError and OSError for broken files.
    """
    config = AutoConfig.from_pretrained(
        str(folder), trust_remote_code=False, local_files_only=True, attention_dropout=0.0
    )
    dtype = dtype or config.dtype
    if dtype is None:
        return None
    config.name_or_path = str(folder)
    model = build_skeleton(config, dtype)
    headers = {path: read_header(path) for path in weight_files(folder)}
    if not is_plain(model) or not _matches(model, headers):
        return None
    fill(model, _tensors(model, headers, device, dtype), device, folder)
    return model


def _tensors(
    model: PreTrainedModel, headers: Headers, device: torch.device, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    dtypes = {name: dtype for name, tensor in _plain(model).items() if tensor.is_floating_point()}
    if device.type == "cpu":
        return map_tensors(headers, dtypes)
    states, rest = ({path: _choose(header, kind) for path, header in headers.items()} for kind in (True, False))
    return {**read_tensors(rest, dtypes, device), **map_tensors(states, {})}


def _choose(header: Mapping[str, Tensor], states: bool) -> dict[str, Tensor]:
    return {name: entry for name, entry in header.items() if (STATE in name) == states}


def _plain(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Returns the tensors that are not quantized, by name."""
    layers = four_bit_layers(model)
    return {name: tensor for name, tensor in wanted_tensors(model).items() if name not in layers}


def _matches(model: PreTrainedModel, headers: Headers) -> bool:
    """Whether the files hold every tensor of the model once, no other, in its shape and a type that is read here."""
    found: dict[str, Tensor] = {name: entry for header in headers.values() for name, entry in header.items()}
    layers = four_bit_layers(model)
    statistics = {name for name in found if _weight_of(name, layers)}
    plain = _plain(model)
    return (
        len(found) == sum(map(len, headers.values()))
        and found.keys() - statistics == plain.keys() | layers.keys()
        and all(found[name].shape == tuple(tensor.shape) for name, tensor in plain.items())
        and all(entry.dtype in DTYPES for entry in found.values())
        and {_weight_of(name, layers) for name in statistics if STATE in name} == set(layers)
    )


def _weight_of(name: str, layers: Mapping[str, object]) -> str | None:
    """Returns the name of the quantized weight that a tensor such as `q_proj.weight.absmax` belongs to."""
    weight, found, _ = name.partition(".weight.")
    return f"{weight}.weight" if found and f"{weight}.weight" in layers else None
