"""Names what must agree where trials are compared, and where a training continues from a state."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from trainables.protocol import ENGINE_VERSION
from trainables.settings import TrialSettings

MASK_POLICY = "completion and EOS"
BASE_WEIGHTS, DATA, ENGINE = "base_model.sha256", "dataset.fingerprint", "engine"  # names in a state's basis


def comparable_hashes(sha256: str, fingerprint: str, settings: TrialSettings, device: str) -> dict[str, str]:
    """Returns hashes that are equal where two trials' quality, and where their cost, may be compared.

    `sha256` is of the base model's weights, `fingerprint` of the data's token ids: tokenizer, split and length are in
    it. `device` is the card's name, or `cpu_device_name`.
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
    }
    return {"quality": _digest(quality), "cost": _digest(cost)}


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
    """Returns the names under which two bases differ; a name that an earlier version did not know is no difference."""
    return tuple(name for name, value in now.items() if name in was and was[name] != value)


def cpu_device_name() -> str:
    """Returns the name of this machine's processor in records."""
    return f"CPU ({platform.machine()})"


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
