"""Asks NVML for a card's memory, energy and power.

Cards are addressed by UUID: NVML's numbers ignore CUDA_VISIBLE_DEVICES.
"""

from __future__ import annotations

import os
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


def used_bytes_of(uuid: str) -> int | None:
    """Bytes in use on the whole card of that UUID; torch is not asked, so no context is created on it."""
    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}".encode())).used)
    except pynvml.NVMLError:
        return None


def process_used_bytes(device: torch.device) -> int | None:
    """Bytes that this process has on the card, context included; None where NVML does not know the process.

    It knows processes by the machine's numbers, which differ from a container's own.
    """
    handle = _handle(device)
    try:
        known = pynvml.nvmlDeviceGetComputeRunningProcesses(handle) if handle else ()
    except pynvml.NVMLError:
        return None
    return next((one.usedGpuMemory for one in known if one.pid == os.getpid()), None)


def device_energy_joules(device: torch.device) -> float | None:
    """The card's total energy counter; None where the card or NVML has none."""
    return _thousandths(device, "nvmlDeviceGetTotalEnergyConsumption")


def device_power_watts(device: torch.device) -> float | None:
    """The power that the card draws now; None where it does not say."""
    return _thousandths(device, "nvmlDeviceGetPowerUsage")


def power_limit_watts(device: torch.device) -> float | None:
    """The power that the card may draw at most, as it is set now; None where the card or NVML does not say."""
    return _thousandths(device, "nvmlDeviceGetEnforcedPowerLimit")


def _thousandths(device: torch.device, question: str) -> float | None:
    """What NVML replies in thousandths of a unit, in that unit; None where there is no reply."""
    handle = _handle(device)
    try:
        return getattr(pynvml, question)(handle) / 1000 if handle else None
    except pynvml.NVMLError:
        return None


def driver_version() -> str | None:
    """The version of NVIDIA's driver; None without NVML."""
    try:
        pynvml.nvmlInit()
        found = pynvml.nvmlSystemGetDriverVersion()
    except pynvml.NVMLError:
        return None
    return found.decode() if isinstance(found, bytes) else str(found)


def _handle(device: torch.device) -> Any | None:
    if device.type != "cuda":
        return None
    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode())
    except pynvml.NVMLError:
        return None
