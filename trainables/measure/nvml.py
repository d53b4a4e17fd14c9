"""Asks NVML for a card's memory, energy and power.

Cards are addressed by UUID: NVML's numbers ignore CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pynvml
import torch


def summed(ask: Callable[[torch.device], float | None], devices: Sequence[torch.device]) -> float | None:
    """The sum of what one of the functions below returns for each card; None where it is None for a card."""
    values = [ask(device) for device in devices]
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def device_used_bytes(device: torch.device) -> int | None:
    """Bytes in use on the whole card, by all processes; None without NVML."""
    handle = _handle(device)
    try:
        return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used) if handle else None
    except pynvml.NVMLError:
        return None


def device_energy_joules(device: torch.device) -> float | None:
    """The card's total energy counter; None where the card or NVML has none."""
    handle = _handle(device)
    try:
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000 if handle else None
    except pynvml.NVMLError:
        return None


def device_power_watts(device: torch.device) -> float | None:
    """The power that the card draws now; None where it does not say."""
    handle = _handle(device)
    try:
        return pynvml.nvmlDeviceGetPowerUsage(handle) / 1000 if handle else None
    except pynvml.NVMLError:
        return None


def _handle(device: torch.device) -> Any | None:
    if device.type != "cuda":
        return None
    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode())
    except pynvml.NVMLError:
        return None
