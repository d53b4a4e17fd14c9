"""Writes and reads checkpoints of a training, and writes adapters in PEFT's format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from search_spaces.resolution import linear_name
from search_spaces.target_modules import is_pattern
from search_spaces.trial_config import TrialConfig
from trainables.comparability import differences
from trainables.guarded_files import parse_json
from trainables.packed.adapter import LoraAdapter
from trainables.packed.member import TrainingMember
from trainables.packed.optimization import LossScaler

ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG_FILE = "adapter_config.json"
PEFT_PREFIX, PEFT_A, PEFT_B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"  # of tensors' names
_NOTHING: Mapping[str, Any] = MappingProxyType({})


def training_state(member: TrainingMember, extra: Mapping[str, Any], basis: Mapping[str, Any] = _NOTHING) -> bytes:
    """Returns weights, optimizer moments, scaler and place in the data as safetensors, with `extra` as JSON.

    `basis` names what the state depends on beside the configuration, as `trainables.comparability.state_basis` does.

    Schedule and dropout follow from the step, so a training that is restored continues as if never interrupted.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _places(member).items()}
    values = {
        "config": member.adapter.config.to_dict(),
        "step": member.step,
        "train_tokens": member.train_tokens,
        "scaler": asdict(member.scaler),
        "total_steps": member.total_steps,
        "extra": dict(extra),
        "basis": dict(basis),
    }
    return save(tensors, metadata={"training": json.dumps(values)})


def restore_training(member: TrainingMember, state: bytes, basis: Mapping[str, Any] = _NOTHING) -> dict[str, Any]:
    """Puts a fresh member where `training_state` left one; returns the extra values.

    Raises ValueError, and changes nothing, where the state is not whole or not as it was written, or is of another
    configuration, base model, data, training or engine. A state that names no basis is of an earlier version: who hands
    it over has to know it.
    """
    saved, tensors = _read(state)
    if saved.config != member.adapter.config:
        raise ValueError(f"a checkpoint must be of its trial's own configuration; it is of {saved.config.to_dict()}")
    was = {**saved.basis, **_length(saved.total_steps)}
    _check_basis(was, {**basis, **_length(member.total_steps)})
    if not 0 <= saved.step <= member.total_steps:
        raise ValueError(f"a checkpoint's step must be from 0 to {member.total_steps}; it is {saved.step}")
    _check_shapes(_places(member), tensors)
    member.optimizer.claim(member.homes)
    with torch.no_grad():
        for name, tensor in _places(member).items():
            if member.away and _has_no_memory(tensor):
                tensor.data = tensors[name].to(tensor.dtype, copy=True)
            else:
                tensor.copy_(tensors[name])
    member.step, member.train_tokens, member.scaler = saved.step, saved.train_tokens, saved.scaler
    return dict(saved.extra)


@dataclass(frozen=True)
class _Saved:
    """What a state says beside its tensors."""

    config: TrialConfig
    step: int
    train_tokens: int
    scaler: LossScaler
    extra: Mapping[str, Any]
    basis: Mapping[str, Any]
    total_steps: int | None  # None: an earlier version wrote it

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> _Saved:
        """Reads the JSON of `training_state`. Raises KeyError, TypeError, ValueError, AttributeError, OverflowError."""
        total = values.get("total_steps")
        return cls(
            TrialConfig.from_dict(values["config"]),
            int(values["step"]),
            int(values["train_tokens"]),
            LossScaler(**values["scaler"]),
            dict(values["extra"]),
            dict(values.get("basis", {})),
            None if total is None else int(total),
        )


def _places(member: TrainingMember) -> dict[str, torch.Tensor]:
    """Returns every tensor that training changes, by its name in a checkpoint."""
    places: dict[str, torch.Tensor] = {}
    kept = member.optimizer.state
    for name, weight in member.adapter.named_parameters().items():
        places[f"weight.{name}"] = weight
    for index, parameter in enumerate(member.adapter.parameters()):
        for name, value in kept[parameter].items():
            places[f"optimizer.{index}.{name}"] = value
    return places


def _has_no_memory(zeros: torch.Tensor) -> bool:
    """Whether all of its numbers are one, as `memoryless_zeros` makes them."""
    return zeros.untyped_storage().nbytes() < zeros.nbytes


def _read(state: bytes) -> tuple[_Saved, dict[str, torch.Tensor]]:
    """Reads what `training_state` wrote: the JSON in the header (after 8 bytes of its length), and the tensors."""
    try:
        tensors = load(state)
        size = int.from_bytes(state[:8], "little")
        values = parse_json(parse_json(state[8 : 8 + size])["__metadata__"]["training"])
        return _Saved.of(values), tensors
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        message = f"a checkpoint must be whole, as it was written; {len(state)} bytes of one cannot be read ({error!r})"
        raise ValueError(f"{message}. Continue from an earlier one, or start the trial again.") from error


def _check_shapes(places: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in places.items():
        found = tensors.get(name)
        if found is None or found.shape != tensor.shape:
            shape = "missing" if found is None else _shape(found)
            message = f"a checkpoint must be of its trial's base model; {name} must be {_shape(tensor)}, it is {shape}"
            raise ValueError(f"{message}. Start the trial again.")


def _length(total_steps: int | None) -> dict[str, int]:
    return {} if total_steps is None else {"optimizer steps": total_steps}


def _check_basis(was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises ValueError with everything that a state depends on and that is not what it was."""
    differing = [f"{name} was {was[name]}, it is {now[name]}" for name in differences(was, now)]
    if differing:
        rule = "a checkpoint must be of its trial's own data, base model and training"
        raise ValueError(f"{rule}; {'; '.join(differing)}. Start the trial again.")


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def peft_tensors(adapter: LoraAdapter) -> dict[str, torch.Tensor]:
    """Copies an adapter's weights to the CPU, under the names that PEFT gives them in a file.

    All fp32: `lora_A` is rank x in_features, `lora_B` out_features x rank.
    """
    return {
        f"{PEFT_PREFIX}{name}.weight": tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in adapter.named_tensors().items()
    }


def peft_files(
    tensors: Mapping[str, torch.Tensor], config: TrialConfig, base_model_path: str, revision: str
) -> dict[str, bytes]:
    """Returns `peft_tensors` as the files that `PeftModel.from_pretrained` reads, by name."""
    updated = [name.removeprefix(PEFT_PREFIX).removesuffix(PEFT_A) for name in tensors if name.endswith(PEFT_A)]
    values = peft_config(config, updated, base_model_path, revision)
    return {
        ADAPTER_FILE: save(dict(tensors), metadata={"format": "pt"}),
        ADAPTER_CONFIG_FILE: json.dumps(values, indent=2).encode(),
    }


def peft_config(config: TrialConfig, updated: Sequence[str], base_model_path: str, revision: str) -> dict[str, Any]:
    """Returns the values of `adapter_config.json`, in PEFT's words; `updated` are the linear layers' full names."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model_path,
        "revision": revision,
        "r": config.rank,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        **_peft_targets(config, updated),
        "bias": "none",
        "inference_mode": True,
    }


def _peft_targets(config: TrialConfig, updated: Sequence[str]) -> dict[str, Any]:
    """Short names where they mean the same to PEFT, with the layers' numbers where not all are meant; else full names.

    PEFT takes a short name anywhere in a model: in another stack too, such as a vision tower, which only a model has
    whose decoder is not directly in its base.
    """
    names = [found for name in updated if (found := linear_name(name))]
    lists = {name.full.removesuffix(name.below).rstrip(".") for name in names}
    plain = all("." not in entry and not is_pattern(entry) for entry in config.target_modules)
    if not plain or len(lists) != 1 or "." in min(lists):
        return {"target_modules": list(updated)}
    shorts = sorted({name.short for name in names})
    if config.layers is None:
        return {"target_modules": shorts}
    layers = {
        "layers_to_transform": sorted({name.layer for name in names}),
        "layers_pattern": names[0].below.split(".")[0],
    }
    return {"target_modules": shorts, **layers}
