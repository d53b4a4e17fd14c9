"""Names what must agree where trials are compared, and where a training continues from a state."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from trainables.memory.offload import RESIDENT, Offload
from trainables.protocol import ENGINE_VERSION
from trainables.settings import TrialSettings

MASK_POLICY = "completion and EOS"
BASE_WEIGHTS, DATA, ENGINE = "base_model.sha256", "dataset.fingerprint", "engine"  # names in a state's basis
EARLIER = {"training.optimizer": "adamw"}  # what earlier versions did where later ones have a setting


def comparable_hashes(
    sha256: str, fingerprint: str, settings: TrialSettings, device: str, offload: Offload = RESIDENT
) -> dict[str, str]:
    """Returns hashes that are equal where two trials' quality, and where their cost, may be compared.

    `sha256` is of the base model's weights, `fingerprint` of the data's token ids: tokenizer, split and length are in
    it. `device` is the card's name, or `cpu_device_name`. What waits in host memory changes no number but a cost, and
    how a trial learns (schedule, optimizer) is what is compared: of that the cost names what memory and time depend on.
    """
    quality = {
        "base_model": sha256,
        "data": fingerprint,
        "mask": MASK_POLICY,
        "max_tokens": settings.dataset.max_tokens,
        # Only where it is off: hashes of earlier records, which do not have it, stay what they were.
        **({} if settings.base_model.double_quantization else {"double_quantization": False}),
    }
    training = settings.training
    cost = {
        **quality,
        "device": device,
        "micro_batch_size": training.micro_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "gradient_checkpointing": training.gradient_checkpointing,
        "engine": ENGINE_VERSION,
        **({} if training.optimizer == "adamw" else {"optimizer": training.optimizer}),  # as above
    }
    return {"quality": _digest(quality), "cost": offloaded_cost(_digest(cost), offload)}


def offloaded_cost(resident: str, offload: Offload) -> str:
    """Returns the hash of a cost that is `resident`'s but for what waits in host memory; where nothing does, itself."""
    return resident if offload.is_none else _digest({"resident": resident, "offload": offload.to_dict()})


def state_basis(sha256: str, fingerprint: str, settings: TrialSettings) -> dict[str, Any]:
    """Returns what a training's state depends on beside its own configuration, by name, JSON-ready.

    `sha256` is of the base model's weights, `fingerprint` of the data's token ids in their order. Settings are named as
    in a study file.
    """
    training = {f"training.{name}": value for name, value in asdict(settings.training).items()}
    return {
        BASE_WEIGHTS: sha256,
        "base_model.double_quantization": settings.base_model.double_quantization,
        DATA: fingerprint,
        ENGINE: ENGINE_VERSION,
        **training,
    }


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names under which two bases differ.

    A name that an earlier version did not know is no difference, unless it did as `EARLIER` says and `now` does not.
    """
    before = EARLIER | dict(was)
    return tuple(name for name, value in now.items() if name in before and before[name] != value)


def cpu_device_name() -> str:
    """Returns the name of this machine's processor in records."""
    return f"CPU ({platform.machine()})"


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
