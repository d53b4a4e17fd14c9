"""Which trials run one after another, how many side by side, and the share of the machine that each takes (pure)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from trainables.settings import HardwareSettings

DEFAULT_ADAPTERS_PER_CPU_HOST = 4
DEFAULT_ADAPTERS_PER_GPU = 8
SHARE_DIGITS = 4  # Ray counts resources in ten-thousandths


@dataclass(frozen=True)
class Node:
    """One machine's free resources."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Phase:
    """Trials of one precision: they share one base model on each device."""

    precision: str
    trials: int
    places: int  # trials side by side, on all devices together
    resources: Mapping[str, float]  # what each trial asks Ray for


class PlanError(ValueError):
    """The machines cannot run the study; the message has rule, value, remedy."""


def plan_phases(
    counts: Mapping[str, int], nodes: tuple[Node, ...], hardware: HardwareSettings, use_gpu: bool
) -> tuple[Phase, ...]:
    """One phase for each precision that has trials, in the order given. Raises PlanError where nothing can run."""
    devices = device_count(nodes, hardware, use_gpu)
    phases = []
    for precision, trials in counts.items():
        if trials == 0:
            continue
        adapters = adapters_per_device(trials, devices, hardware, use_gpu)
        resources = gpu_share(adapters) if use_gpu else cpu_share(adapters, nodes)
        phases.append(Phase(precision, trials, min(trials, adapters * devices), resources))
    return tuple(phases)


def device_count(nodes: tuple[Node, ...], hardware: HardwareSettings, use_gpu: bool) -> int:
    """Cards, or for a CPU study nodes, that hold a host."""
    if not use_gpu:
        return max(1, len(nodes))
    there = sum(int(node.gpus) for node in nodes)
    if there == 0:
        raise PlanError(
            f"hardware.gpu is {hardware.gpu!r}, and there is no GPU here. "
            "Run on a machine with an NVIDIA card, or set hardware.gpu to cpu."
        )
    return min(there, hardware.gpus or there)


def adapters_per_device(trials: int, devices: int, hardware: HardwareSettings, use_gpu: bool) -> int:
    """Trials on one device: spread over the devices first, then side by side up to the bound."""
    bound = hardware.max_adapters_per_gpu or (DEFAULT_ADAPTERS_PER_GPU if use_gpu else DEFAULT_ADAPTERS_PER_CPU_HOST)
    return max(1, min(bound, math.ceil(trials / devices)))


def gpu_share(adapters: int) -> dict[str, float]:
    """The fraction of a card for each of `adapters` trials, rounded down so that all of them fit."""
    return {"CPU": 0.0, "GPU": _floor(1 / adapters)}


def cpu_share(adapters: int, nodes: tuple[Node, ...]) -> dict[str, float]:
    """The fraction of a node's cores for each of `adapters` trials on it (the smallest node decides)."""
    return {"CPU": _floor(min(node.cpus for node in nodes) / adapters)}


def _floor(share: float) -> float:
    return math.floor(share * 10**SHARE_DIGITS) / 10**SHARE_DIGITS
