"""Finds this machine's processor, memory and cards (as NVML reports them)."""

from __future__ import annotations

import os
import platform
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

with warnings.catch_warnings():  # the package `pynvml` asks for `nvidia-ml-py`, which has the same module
    warnings.filterwarnings("ignore", message="The pynvml package is deprecated", category=FutureWarning)
    import pynvml


@dataclass(frozen=True)
class Card:
    """One NVIDIA card; what NVML does not tell is None."""

    name: str
    uuid: str | None
    memory_bytes: int | None
    compute_capability: str | None


@dataclass(frozen=True)
class Cards:
    """The cards and their driver; `reason` says why there are none."""

    cards: tuple[Card, ...] = ()
    driver: str | None = None
    reason: str | None = None


def find_cards() -> Cards:
    """The cards that NVML sees, whatever CUDA_VISIBLE_DEVICES hides; a machine without NVML has none."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return Cards(reason=str(error))
    try:
        count = pynvml.nvmlDeviceGetCount()
        cards = tuple(_card(pynvml.nvmlDeviceGetHandleByIndex(index)) for index in range(count))
        return Cards(cards, _text(pynvml.nvmlSystemGetDriverVersion()), None if cards else "NVML knows of no card")
    except pynvml.NVMLError as error:
        return Cards(reason=str(error))
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _card(handle: Any) -> Card:
    uuid = memory = capability = None
    with suppress(pynvml.NVMLError):
        uuid = _text(pynvml.nvmlDeviceGetUUID(handle))
    with suppress(pynvml.NVMLError):  # cards that share the machine's memory have none of their own
        memory = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    with suppress(pynvml.NVMLError):
        capability = ".".join(map(str, pynvml.nvmlDeviceGetCudaComputeCapability(handle)))
    return Card(_text(pynvml.nvmlDeviceGetName(handle)), uuid, memory, capability)


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and cards, JSON-ready."""
    found = find_cards()
    return {
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": [asdict(card) for card in found.cards],
        "driver": found.driver,
    }


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_name(information: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, or where the system does not tell, its architecture."""
    with suppress(OSError):
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()
