"""Merges an adapter into its base model's 16-bit weights, one tensor after another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from trainables.base_model.checks.faults import BaseModelError
from trainables.base_model.checks.folders import CONFIG
from trainables.base_model.checks.safetensors_header import read_header
from trainables.base_model.checks.tensors import HEAD
from trainables.base_model.checks.weight_files import INDEX_FILE, weight_files
from trainables.base_model.families import FAMILIES
from trainables.base_model.hub import SMALL_FILES
from trainables.guarded_files import read_json
from trainables.packed.adapter_files import ADAPTER_CONFIG_FILE, ADAPTER_FILE, PEFT_A, PEFT_B, PEFT_PREFIX
from trainables.shown_values import shortened

_NOT_COPIED = (CONFIG, INDEX_FILE, ADAPTER_CONFIG_FILE)


def write_merged(base_folder: Path, adapter_folder: Path, target: Path) -> str:
    """Writes the base model with the adapter merged in as a folder that transformers loads; returns its type's name.

    `W = W0 + (alpha / r) B A` (Hu et al. 2021), summed in fp32 and rounded once, to fp16 where the base's weight is
    fp16, else to bf16. One tensor at a time is in memory, beside the shard being written. Raises BaseModelError where
    the adapter is of another model or updates an output head that is the embedding too, and where a merged weight is
    too large for fp16.
    """
    updates = low_rank_updates(adapter_folder)
    _check_untied(base_folder, updates)
    left, dtypes = set(updates), set()
    files = weight_files(base_folder)
    for file in files:
        shard = _merged_shard(file, updates)
        left -= {_updated_name(name, updates) for name in shard}
        dtypes |= {tensor.dtype for tensor in shard.values() if tensor.is_floating_point()}
        save_file(shard, target / file.name, metadata={"format": "pt"})
        (target / file.name).chmod(0o644)  # safetensors' files are for their owner alone
    if left:
        raise BaseModelError(
            f"an adapter must be of the base model that it is merged into; {base_folder} has no {min(left)!r}. "
            "Give the base model that the trial was trained on."
        )
    dtype = "float16" if dtypes == {torch.float16} else "bfloat16"
    _write_small_files(base_folder, target, dtype)
    if len(files) > 1:
        _write_index(base_folder, target)
    return dtype


def low_rank_updates(adapter_folder: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor, float]]:
    """Returns A, B and alpha / r of each weight that an adapter in PEFT's format changes, by its name in the base.

    Raises BaseModelError where the adapter's files are not whole, or not as a study writes them.
    """
    read_header(adapter_folder / ADAPTER_FILE)
    try:
        config: Mapping[str, Any] = read_json(adapter_folder / ADAPTER_CONFIG_FILE)
        scale = config["lora_alpha"] / config["r"]
        tensors = load_file(adapter_folder / ADAPTER_FILE)
        modules = [name.removesuffix(PEFT_A) for name in tensors if name.endswith(PEFT_A)]
        return {
            f"{module.removeprefix(PEFT_PREFIX)}.weight": (tensors[module + PEFT_A], tensors[module + PEFT_B], scale)
            for module in modules
        }
    except (OSError, ValueError, LookupError, TypeError, ZeroDivisionError) as error:
        reason = f"{type(error).__name__}: {shortened(str(error))}"
        raise BaseModelError(
            f"an adapter must be as the study wrote it, in PEFT's format; {adapter_folder} is not ({reason}). "
            "Bring the adapter's folder back, or export another trial."
        ) from error


def _check_untied(base_folder: Path, updates: Mapping[str, Any]) -> None:
    values = read_json(base_folder / CONFIG)
    usual = FAMILIES[values["model_type"]].defaults if values.get("model_type") in FAMILIES else {}
    if HEAD in updates and values.get("tie_word_embeddings", usual.get("tie_word_embeddings", False)):
        raise BaseModelError(
            f"a merged weight must be of its layer alone; {HEAD!r} is the input embedding too (tie_word_embeddings). "
            "Take the adapter without merging it."
        )


def _updated_name(name: str, updates: Mapping[str, Any]) -> str:
    """A weight's name in the causal model; a base that was saved without its head leaves out the first part."""
    if name in updates:
        return name
    return next((full for full in updates if full.partition(".")[2] == name), name)


def _merged_shard(file: Path, updates: Mapping[str, tuple[torch.Tensor, torch.Tensor, float]]) -> dict[str, Any]:
    shard = {}
    with safe_open(file, framework="pt") as weights:
        for name in weights.keys():  # noqa: SIM118 (it is no mapping)
            shard[name] = _merged(name, weights.get_tensor(name), updates.get(_updated_name(name, updates)))
    return shard


def _merged(name: str, weight: torch.Tensor, update: tuple[torch.Tensor, torch.Tensor, float] | None) -> torch.Tensor:
    if not weight.is_floating_point():
        return weight
    dtype = torch.float16 if weight.dtype == torch.float16 else torch.bfloat16
    if update is None:
        return weight.to(dtype)
    a, b, scale = update
    if weight.shape != (b.shape[0], a.shape[1]):
        raise BaseModelError(
            f"an adapter must be of the base model that it is merged into; {name!r} is {tuple(weight.shape)} there and "
            f"{(b.shape[0], a.shape[1])} in the adapter. Give the base model that the trial was trained on."
        )
    merged = torch.addmm(weight.float(), b.float(), a.float(), alpha=scale).to(dtype)
    if not torch.isfinite(merged).all():
        raise BaseModelError(
            f"a merged weight must be finite; {name!r} is not in {str(dtype).removeprefix('torch.')}. "
            "Take the adapter without merging it."
        )
    return merged


def _write_small_files(base_folder: Path, target: Path, dtype: str) -> None:
    """Writes the configuration with the weights' type, the tokenizer, and the licence where it is beside them."""
    for file in sorted(base_folder.iterdir()):
        wanted = any(fnmatch(file.name, pattern) for pattern in (*SMALL_FILES, "LICENSE*", "NOTICE*", "USE_POLICY*"))
        if wanted and file.is_file() and file.name not in _NOT_COPIED:
            shutil.copyfile(file, target / file.name)
    config = read_json(base_folder / CONFIG)
    config.pop("torch_dtype", None)
    text = json.dumps({**config, "dtype": dtype}, indent=2)
    (target / CONFIG).write_text(text + "\n", encoding="utf-8")


def _write_index(base_folder: Path, target: Path) -> None:
    """Writes the base's index with the merged weights' size; their names and files are the base's own."""
    values = read_json(base_folder / INDEX_FILE)
    values["metadata"] = {"total_size": sum(map(_tensor_bytes, target.glob("*.safetensors")))}
    (target / INDEX_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _tensor_bytes(file: Path) -> int:
    with file.open("rb") as opened:
        return file.stat().st_size - 8 - int.from_bytes(opened.read(8), "little")
