"""Computes how many trials run side by side, and each trial's share of a device.

A trial's share of a card is max(adapter bytes / room, 1 / ceil(trials / cards)), rounded up to one of a few levels:
trials spread over the cards first and are packed second, equal requests let idle trial actors be used again, and the
shares on a card never sum to more than it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from study.errors import PlanError
from study.records.units import format_bytes
from trainables.limits import DEFAULT_PACK
from trainables.settings import HardwareSettings

SHARE_DIGITS = 4  # Ray counts resources in ten-thousandths
# A share is one over one of these. They divide 240, so a sum of shares over 1 exceeds it by 1/240 or more: rounding
# each of at most 16 down to a ten-thousandth cannot hide it.
PLACES_PER_DEVICE = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)


@dataclass(frozen=True)
class Node:
    """One machine's resources; one that the cluster's autoscaler may still add counts as well."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Demand:
    """Trials that run in one phase, and what the memory model says of them; None where it says nothing.

    `cards` hold the base model together. `adapter_bytes` is what the smallest of the trials adds to a card, and
    `room_bytes` what the base leaves there. `most` is the number of adapters beyond which a larger pack does not pay.
    """

    precision: str
    trials: int
    adapter_bytes: int | None = None
    room_bytes: int | None = None
    cards: int = 1
    most: int | None = None


@dataclass(frozen=True)
class Phase:
    """Trials of one precision that run together: they share one base model on each device (or group of cards)."""

    precision: str
    trials: int
    places: int  # trials side by side, on all devices together
    resources: Mapping[str, float]  # what a trial asks Ray for, unless its adapter is larger than the smallest
    cards: int = 1  # of one node, that hold the base together
    per_device: int = 1  # places on one device
    room_bytes: int | None = None
    device_amount: float = 1.0  # of a whole device: one card, or a node's cores

    def resources_for(self, adapter_bytes: int | None) -> Mapping[str, float]:
        """What a trial with so many bytes of its own asks Ray for. Raises PlanError where they exceed the room."""
        if adapter_bytes is None or self.room_bytes is None or self.cards > 1:
            return self.resources
        places = min(self.per_device, places_in_room(adapter_bytes, self.room_bytes))
        name = "GPU" if "GPU" in self.resources else "CPU"
        return {**self.resources, name: _floor(self.device_amount / places)}


def plan_phases(
    counts: Mapping[str, int], nodes: tuple[Node, ...], hardware: HardwareSettings, use_gpu: bool
) -> tuple[Phase, ...]:
    """One phase for each precision that has trials, where nothing is known of memory; else as `plan_demands`."""
    return plan_demands([Demand(precision, trials) for precision, trials in counts.items()], nodes, hardware, use_gpu)


def plan_demands(
    demands: Sequence[Demand], nodes: tuple[Node, ...], hardware: HardwareSettings, use_gpu: bool
) -> tuple[Phase, ...]:
    """One phase for each demand that has trials, in the order given; Ray starves trials of a whole card beside others,
    so callers demand them apart. Raises PlanError for what no node can ever run."""
    device_count(nodes, hardware, use_gpu)  # raises where there is none at all
    phase = _gpu_phase if use_gpu else _cpu_phase
    return tuple(phase(demand, nodes, hardware) for demand in demands if demand.trials > 0)


def device_count(nodes: tuple[Node, ...], hardware: HardwareSettings, use_gpu: bool, cards: int = 1) -> int:
    """Groups of `cards` cards of one node, or for a CPU study nodes with cores, that can hold a host."""
    if not use_gpu:
        return max(1, len(_with_cores(nodes)))
    if not any(node.gpus >= 1 for node in nodes):
        raise PlanError(
            f"hardware.gpu is {hardware.gpu!r}, and there is no GPU here. "
            "Run on a machine with an NVIDIA card, or set hardware.gpu to cpu."
        )
    there = sum(int(node.gpus) // cards for node in nodes)
    return there if hardware.gpus is None else min(there, hardware.gpus // cards)


def adapters_per_device(demand: Demand, devices: int, hardware: HardwareSettings, use_gpu: bool) -> int:
    """Trials on one device: spread over the devices first, then side by side up to memory and what pays."""
    default = DEFAULT_PACK["cuda" if use_gpu else "cpu"]
    bound = hardware.max_adapters_per_gpu or demand.most or default
    wanted = min(bound, math.ceil(demand.trials / devices))
    if demand.adapter_bytes is not None and demand.room_bytes is not None:
        wanted = min(wanted, places_in_room(demand.adapter_bytes, demand.room_bytes))
    return _level(wanted)


def places_in_room(adapter_bytes: int, room_bytes: int) -> int:
    """How many such adapters share a device, as one of the levels. Raises PlanError where not even one fits."""
    if adapter_bytes > room_bytes:
        raise PlanError(
            f"an adapter must fit into what the base model leaves; it takes {format_bytes(adapter_bytes)} with its "
            f"rows, and {format_bytes(max(0, room_bytes))} are left. Lower rank, micro batch or max_tokens, or take a "
            "larger card."
        )
    return _level(room_bytes // max(1, adapter_bytes))


def _gpu_phase(demand: Demand, nodes: tuple[Node, ...], hardware: HardwareSettings) -> Phase:
    devices = device_count(nodes, hardware, True, demand.cards)
    if devices == 0:
        raise PlanError(_too_many_cards(demand, nodes, hardware))
    if demand.cards > 1:  # Ray knows no fraction of several cards; one bundle, so that the trial sees them all
        resources = {"CPU": 0.0, "GPU": float(demand.cards)}
        return Phase(demand.precision, demand.trials, min(demand.trials, devices), resources, demand.cards)
    adapters = adapters_per_device(demand, devices, hardware, True)
    return Phase(
        demand.precision,
        demand.trials,
        places=min(demand.trials, adapters * devices),
        resources={"CPU": 0.0, "GPU": _floor(1 / adapters)},
        per_device=adapters,
        room_bytes=demand.room_bytes,
    )


def _cpu_phase(demand: Demand, nodes: tuple[Node, ...], hardware: HardwareSettings) -> Phase:
    devices = device_count(nodes, hardware, False)
    adapters = adapters_per_device(demand, devices, hardware, False)
    cores = min((node.cpus for node in _with_cores(nodes)), default=0.0)
    if cores == 0:
        raise PlanError("hardware.gpu is 'cpu', and no node offers Ray a core. Start Ray with --num-cpus above 0.")
    return Phase(
        demand.precision,
        demand.trials,
        places=min(demand.trials, adapters * devices),
        resources={"CPU": _floor(cores / adapters)},
        per_device=adapters,
        room_bytes=demand.room_bytes,
        device_amount=cores,
    )


def _with_cores(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    return tuple(node for node in nodes if node.cpus > 0)


def _too_many_cards(demand: Demand, nodes: tuple[Node, ...], hardware: HardwareSettings) -> str:
    largest = max(int(node.gpus) for node in nodes)
    if hardware.gpus is not None and hardware.gpus < demand.cards <= largest:
        there, remedy = f"hardware.gpus allows {hardware.gpus}", f"Raise it to {demand.cards}"
    else:
        there, remedy = f"the largest node has {largest}", f"Add a node with {demand.cards} cards"
    return (
        f"precision {demand.precision} needs {demand.cards} cards of one node for its base model; {there}. "
        f"{remedy}, or leave {demand.precision} out of the search space."
    )


def _level(places: int) -> int:
    return max(level for level in PLACES_PER_DEVICE if level <= max(1, places))


def _floor(share: float) -> float:
    """Rounded down, so that all places fit together."""
    units: int = 10**SHARE_DIGITS
    return math.floor(share * units) / units
