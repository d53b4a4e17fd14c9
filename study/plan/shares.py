"""Computes how many trials run side by side, and each trial's share of a device.

Trials spread over the devices first and are packed second. Where all trials of a phase are known, and any so many of
them fit a device together, each asks for the same share: no share is left over, and an idle trial actor is used again
by whichever trial comes next. Else a trial's share is what it takes of the room, rounded up to one of a few levels, so
that the shares on a device never sum to more than it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from study.errors import PlanError
from study.plan.places import WHOLE, AdapterBytes, any_that_fit, equal_places, rounds_of
from study.records.units import format_bytes
from trainables.limits import DEFAULT_PACK
from trainables.memory.offload import RESIDENT, Offload
from trainables.settings import HardwareSettings

MOST_PLACES = 16  # on a device, unless the study says otherwise: each is a process of its own beside the host
MOST_EQUAL = 100  # where 1 / places is rounded down further, one more would fit
# A share of its own is one of these parts of 240, so a sum of shares over 1 exceeds it by 1/240 or more: rounding each
# of at most 16 down to a ten-thousandth cannot hide it.
PARTS = 240
LEVELS = (15, 20, 24, 30, 40, 48, 60, 80, 96, 120, 144, 160, 180, 192, PARTS)
PLACES_PER_DEVICE = tuple(PARTS // level for level in reversed(LEVELS) if PARTS % level == 0)


@dataclass(frozen=True)
class Node:
    """One machine's resources; one that the cluster's autoscaler may still add counts as well."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Demand:
    """Trials that run in one phase, and what the memory model says of them; nothing where it knows nothing.

    `cards` hold the base model together. `adapters` are what trials add to a device: of a grid (`listed`) all of them
    in its order, of a search some that may come. `room_bytes` is what the base leaves there, `in_a_pass` the
    micro-batches of a usual pass. `most` is the number of adapters beyond which a larger pack does not pay.
    `ends_together`: trials take equally long, and none is stopped early.
    """

    precision: str
    trials: int
    adapters: tuple[AdapterBytes, ...] = ()
    room_bytes: int | None = None
    cards: int = 1
    most: int | None = None
    in_a_pass: int = 1
    listed: bool = False
    ends_together: bool = True
    offload: Offload = RESIDENT


@dataclass(frozen=True)
class Phase:
    """Trials of one precision that run together: they share one base model on each device (or group of cards)."""

    precision: str
    trials: int
    places: int  # trials side by side, on all devices together, at most
    resources: Mapping[str, float]  # what a trial asks Ray for, unless shares are of its own and it is larger
    cards: int = 1  # of one node, that hold the base together
    per_device: int = 1  # places on one device
    room_bytes: int | None = None
    device_amount: float = 1.0  # of a whole device: one card, or a node's cores
    equal: bool = True  # all trials ask for the same
    offload: Offload = RESIDENT  # what of its hosts' training waits in host memory

    def resources_for(self, adapter_bytes: int | None) -> Mapping[str, float]:
        """What a trial that takes so many bytes alone asks Ray for. Raises PlanError where they exceed the room."""
        if adapter_bytes is None or self.room_bytes is None or self.cards > 1:
            return self.resources
        level = own_level(adapter_bytes, self.room_bytes, self.per_device)
        if self.equal:
            return self.resources
        return {**self.resources, self.kind: _floor(self.device_amount * level / PARTS)}

    @property
    def kind(self) -> str:
        """The resource that trials share: GPU or CPU."""
        return "GPU" if "GPU" in self.resources else "CPU"

    def rounds(self, adapter_bytes: Sequence[int | None], devices: int) -> list[tuple[int, ...]]:
        """The packs' sizes on the devices, round by round, of trials of equal length that take so many bytes each."""
        asked = [self.resources_for(one)[self.kind] / self.device_amount / self.cards for one in adapter_bytes]
        return rounds_of([math.floor(WHOLE * share + 0.001) for share in asked], devices, self.places)


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


@dataclass(frozen=True)
class Sharing:
    """How trials share a device: so many `places`, of which each trial takes an `equal` one, or as many as it needs."""

    places: int
    equal: bool


def sharing(demand: Demand, devices: int, hardware: HardwareSettings, use_gpu: bool) -> Sharing:
    """How a demand's trials share each of the devices: spread over them first, then side by side up to what pays.

    By memory where it is known: equal places where the trials are listed and take no more rounds so than with shares of
    their own.
    """
    default = DEFAULT_PACK["cuda" if use_gpu else "cpu"]
    bound = min(hardware.max_adapters_per_gpu or min(demand.most or default, MOST_PLACES), MOST_EQUAL)
    wanted = min(bound, math.ceil(demand.trials / devices))
    if not demand.adapters or demand.room_bytes is None:
        return Sharing(_in_rounds(demand, devices, wanted), equal=True)
    own = _own_places(demand, devices, wanted)
    fits = any_that_fit(demand.adapters, demand.room_bytes, demand.in_a_pass) if demand.listed else 0
    if fits == 0:
        return Sharing(own, equal=False)
    equal = _in_rounds(demand, devices, min(wanted, fits))
    if fits >= wanted or math.ceil(demand.trials / (equal * devices)) <= _own_rounds(demand, devices, own):
        return Sharing(equal, equal=True)
    return Sharing(own, equal=False)


def own_level(adapter_bytes: int, room_bytes: int, places: int) -> int:
    """The share of a device, in parts of 240, of a trial that takes so many bytes of the room, and at least a place.

    Raises PlanError where the bytes exceed the room.
    """
    if adapter_bytes > room_bytes:
        raise PlanError(
            f"an adapter must fit into what the base model leaves; it takes {format_bytes(adapter_bytes)} with its "
            f"rows, and {format_bytes(max(0, room_bytes))} are left. Lower rank, micro batch or max_tokens, or take a "
            "larger card."
        )
    least = max(-(-PARTS * adapter_bytes // max(1, room_bytes)), -(-PARTS // places))
    return min((level for level in LEVELS if level >= least), default=PARTS)


def places_in_room(adapter_bytes: int, room_bytes: int) -> int:
    """How many such adapters share a device, as one of the levels. Raises PlanError where not even one fits."""
    return PARTS // own_level(adapter_bytes, room_bytes, max(PLACES_PER_DEVICE))


def _in_rounds(demand: Demand, devices: int, most: int) -> int:
    return equal_places(demand.trials, devices, most) if demand.ends_together else most


def _own_places(demand: Demand, devices: int, wanted: int) -> int:
    """The places of which the smallest adapter takes one, as a level: 1 / places is a part of 240.

    In rounds of equal size where the largest takes no more: with unlike shares trials do not end in rounds.
    """
    room = demand.room_bytes
    assert room is not None
    smallest, largest = (pick(one.total_bytes for one in demand.adapters) for pick in (min, max))
    most = _level(min(wanted, places_in_room(smallest, room)))
    alike = own_level(largest, room, most) * most == PARTS
    least = _in_rounds(demand, devices, most) if alike else most
    return min(level for level in PLACES_PER_DEVICE if level >= least)


def _own_rounds(demand: Demand, devices: int, places: int) -> int:
    assert demand.room_bytes is not None
    levels = [own_level(one.total_bytes, demand.room_bytes, places) for one in demand.adapters]
    return len(rounds_of([WHOLE * level // PARTS for level in levels], devices, places * devices))


def _gpu_phase(demand: Demand, nodes: tuple[Node, ...], hardware: HardwareSettings) -> Phase:
    devices = device_count(nodes, hardware, True, demand.cards)
    if devices == 0:
        raise PlanError(_too_many_cards(demand, nodes, hardware))
    if demand.cards > 1:  # Ray knows no fraction of several cards; one bundle, so that the trial sees them all
        resources = {"CPU": 0.0, "GPU": float(demand.cards)}
        return Phase(demand.precision, demand.trials, min(demand.trials, devices), resources, demand.cards)
    shared = sharing(demand, devices, hardware, True)
    return Phase(
        demand.precision,
        demand.trials,
        places=min(demand.trials, shared.places * devices),
        resources={"CPU": 0.0, "GPU": _floor(1 / shared.places)},
        per_device=shared.places,
        room_bytes=demand.room_bytes,
        equal=shared.equal,
        offload=demand.offload,
    )


def _cpu_phase(demand: Demand, nodes: tuple[Node, ...], hardware: HardwareSettings) -> Phase:
    devices = device_count(nodes, hardware, False)
    shared = sharing(demand, devices, hardware, False)
    cores = min((node.cpus for node in _with_cores(nodes)), default=0.0)
    if cores == 0:
        raise PlanError("hardware.gpu is 'cpu', and no node offers Ray a core. Start Ray with --num-cpus above 0.")
    return Phase(
        demand.precision,
        demand.trials,
        places=min(demand.trials, shared.places * devices),
        resources={"CPU": _floor(cores / shared.places)},
        per_device=shared.places,
        room_bytes=demand.room_bytes,
        device_amount=cores,
        equal=shared.equal,
        offload=demand.offload,
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
    return math.floor(share * WHOLE) / WHOLE
