"""The bench that all trials of a host work at: settings, base model, data, what was measured of the base."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from search_spaces.footprint import Footprint
from trainables.base_model.load import BaseModel
from trainables.comparability import comparable_hashes, cpu_device_name, state_basis
from trainables.dataset.prepared import PreparedDataset
from trainables.measure.evaluation import Evaluation
from trainables.memory.offload import RESIDENT, Offload
from trainables.settings import TrialSettings
from trainables.verdicts import Conditions, RanOut


@dataclass
class Bench:
    """Settings, base model and data of a host, and what was measured of the base model itself."""

    settings: TrialSettings
    base: BaseModel
    dataset: PreparedDataset
    evaluation: Evaluation | None = None
    generated_tokens_per_second: float | None = None
    answers: dict[tuple[int, ...], str] = field(default_factory=dict)
    ran_out: dict[Footprint, RanOut] = field(default_factory=dict)  # alone, tried twice
    tries_alone: bool = False  # one resident, with the others off the device
    offload: Offload = RESIDENT  # what of each training waits in host memory


def device_name(device: torch.device) -> str:
    """The card's name, or the processor's architecture."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_device_name()


def comparable(bench: Bench) -> dict[str, str]:
    """Hashes that are equal where two trials' quality, and where their cost, may be compared."""
    base, device = bench.base, device_name(bench.base.device)
    return comparable_hashes(base.info.sha256, bench.dataset.fingerprint, bench.settings, device, bench.offload)


def basis(bench: Bench) -> dict[str, Any]:
    """What the states of this bench's trainings depend on beside their configurations."""
    return state_basis(bench.base.info.sha256, bench.dataset.fingerprint, bench.settings)


def memory_conditions(bench: Bench) -> Conditions:
    """What decides here, beside a footprint, whether it runs out of memory."""
    cards = sum(device.type == "cuda" for device in bench.base.devices)
    return Conditions.of(bench.settings, cards, bench.dataset.fingerprint, bench.offload)
