"""Chooses the hardware to plan for: a card of the catalogue, of this machine, or its processor."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from study.hardware.calibration import Calibration, calibration_for
from study.hardware.gpu_catalogue import (
    GpuCard,
    UnknownGpuError,
    card_of,
    find_gpu,
)
from study.hardware.machine import Card, find_cards
from trainables.precision import Processor, cpu_multiplies_bf16
from trainables.protocol import ENGINE_VERSION
from trainables.settings import HardwareSettings

USABLE_SHARE = 0.97  # of what NVML calls a card's memory, CUDA can have; the catalogue knows it of its own cards
# Of a card's part of its machine's memory: beyond 95 % Ray ends processes. The reserve is for the system, Ray, the
# study's own process, and the host's libraries.
HOST_SHARE, HOST_RESERVE_BYTES = 0.95, 4 * 2**30
AUTO = "auto"
CPU = "cpu"  # whose calibration is one for all processors: libraries take what they take


def target_here(hardware: HardwareSettings) -> Target:
    """What a study is planned for: the cards that it names, else this machine's, else its processor."""
    limit = hardware.memory_limit_bytes
    found = () if hardware.gpu == CPU else find_cards().cards
    if hardware.gpu not in (CPU, AUTO):
        card = find_gpu(hardware.gpu)
        alike = sum(card_of(one) == card for one in found)
        memory = _part_here(len(found)) if alike else None
        return gpu_target(card, hardware.gpus or alike or 1, ENGINE_VERSION, None, limit, memory)
    smallest = smallest_here(found)
    if smallest is None:
        return cpu_target(psutil.virtual_memory().total, ENGINE_VERSION, limit_bytes=limit)
    card, count = smallest
    memory = _part_here(count)
    return gpu_target(card, min(count, hardware.gpus or count), ENGINE_VERSION, None, limit, memory)


def target_of_cluster(
    hardware: HardwareSettings, gpus_by_node: Sequence[float], kinds: Collection[str], use_gpu: bool, local: bool
) -> Target | None:
    """What a study runs on: this machine (`local`) as NVML knows it, else the cards that the study or Ray names.

    `kinds` are Ray's names of the nodes' cards (`T4`, `A100-40G`). None where the cards are not known. Other machines
    without cards are taken to be like this one.
    """
    limit = hardware.memory_limit_bytes
    if not use_gpu:
        return cpu_target(psutil.virtual_memory().total, ENGINE_VERSION, limit_bytes=limit)
    found = smallest_here(find_cards().cards) if local else None
    card = found[0] if found else _named(hardware, kinds)
    memory = _part_here(found[1]) if found else None
    if card is None:
        return None
    count, most = int(sum(gpus_by_node)), int(max(gpus_by_node, default=0))
    return gpu_target(card, min(count, hardware.gpus or count), ENGINE_VERSION, most, limit, memory)


def _part_here(cards: int) -> int:
    """A card's part of this machine's memory."""
    return psutil.virtual_memory().total // cards


def _named(hardware: HardwareSettings, kinds: Collection[str]) -> GpuCard | None:
    if hardware.gpu not in (AUTO, CPU):
        return find_gpu(hardware.gpu)
    cards = [card for card in map(_of_ray, kinds) if card]
    return min(cards, key=lambda card: card.memory_bytes) if cards and len(cards) == len(kinds) else None


def _of_ray(kind: str) -> GpuCard | None:
    for name in (kind, kind.removesuffix("G")):
        with suppress(UnknownGpuError):
            return find_gpu(name)
    return None


def gpu_target(
    card: GpuCard,
    count: int,
    engine: int,
    per_node: int | None = None,
    limit_bytes: int | None = None,
    host_memory_bytes: int | None = None,
) -> Target:
    """`count` such cards, `per_node` of them in one machine (None: all), calibrated by what was measured on such.

    `host_memory_bytes`: a card's part of its machine's memory; None: as the catalogue says of a usual machine.
    """
    calibration, host = calibration_for(card.key, "cuda", engine), host_memory_bytes or card.host_memory_bytes
    return Target(card, card.memory_bytes, count, per_node or count, calibration, limit_bytes, host_memory_bytes=host)


def cpu_target(
    memory_bytes: int, engine: int, count: int = 1, limit_bytes: int | None = None, computes_bf16: bool | None = None
) -> Target:
    """Machines without a card; `computes_bf16` None: as this machine's processor."""
    bf16 = cpu_multiplies_bf16() if computes_bf16 is None else computes_bf16
    calibration = calibration_for(CPU, "cpu", engine)
    return Target(None, memory_bytes, count, 1, calibration, limit_bytes, bf16)


def card_here(found: Card) -> GpuCard:
    """The catalogue's card for one that NVML found; one that it does not have is known by its memory alone."""
    known = card_of(found)
    if known is not None:
        return known
    major, minor = map(int, (found.compute_capability or "0.0").split("."))
    return GpuCard(
        key=found.name,
        name=found.name,
        memory_bytes=int(USABLE_SHARE * (found.memory_bytes or 0)),
        compute_capability=(major, minor),
        bandwidth_bytes_per_second=None,
        tensor_flops=None,
        product_efficiency=1.0,
        bandwidth_efficiency=1.0,
        measured=False,
        price_per_hour=None,
        price_as_of="",
        price_source="",
    )


def smallest_here(found: tuple[Card, ...]) -> tuple[GpuCard, int] | None:
    """This machine's cards as so many of the smallest: what fits there fits all. None without a card."""
    cards = [card_here(card) for card in found]
    return (min(cards, key=lambda card: card.memory_bytes), len(cards)) if cards else None


@dataclass(frozen=True)
class Target:
    """The hardware that is planned for: `count` equal cards, `per_node` of them in one machine; or CPUs (`card` None).

    `memory_bytes` is a card's, or the machine's; `limit_bytes` caps what the host may hold of it, beside CUDA's
    context. A host can spread its base over the cards of its machine. `host_memory_bytes` is a card's part of its
    machine's memory (None: not known, and taken to be enough).
    """

    card: GpuCard | None
    memory_bytes: int
    count: int
    per_node: int
    calibration: Calibration
    limit_bytes: int | None = None
    cpu_computes_bf16: bool = False
    host_memory_bytes: int | None = None

    @property
    def processor(self) -> Processor:
        """What computes there."""
        return self.card.processor if self.card else Processor.of_cpu(self.cpu_computes_bf16)

    @property
    def holder(self) -> str:
        """What one base model is on, in words: `one NVIDIA T4`, or `the machine`."""
        return "the machine" if self.card is None else f"one {self.card.name}"

    @property
    def cards_together(self) -> int:
        """How many cards a base may be spread over: those of one machine, of which the study may take `count`."""
        return 1 if self.card is None else min(self.per_node, self.count)

    @property
    def capacity_bytes(self) -> int:
        """What the models may count on, CUDA's context included."""
        if self.limit_bytes is None:
            return self.memory_bytes
        return min(self.memory_bytes, self.limit_bytes + self.calibration.constants.context_bytes)

    @property
    def host_room_bytes(self) -> int | None:
        """What may wait in the host memory of one card; None where it is not known."""
        if self.host_memory_bytes is None:
            return None
        return max(0, int(HOST_SHARE * self.host_memory_bytes) - HOST_RESERVE_BYTES)
