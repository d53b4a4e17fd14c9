"""Predicts what a configuration needs of card and host memory under any offload, and its price in time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from study.hardware.targets import Target
from study.plan.offloading.ladder import Permitted, held_by_card, mildest
from study.plan.roofline import bus_bytes, pass_time, update_seconds
from study.plan.workload import Workload
from trainables.dataset import batches
from trainables.memory.host_memory import host_bytes
from trainables.memory.offload import Offload
from trainables.memory.prediction import predict
from trainables.memory.setting import AdapterLoad, MemorySetting, Pass


@dataclass(frozen=True)
class Needs:
    """What an adapter that trains alone on one card needs; `setting` says how its base model is kept otherwise."""

    setting: MemorySetting
    load: AdapterLoad
    workload: Workload
    target: Target
    _known: dict[Offload, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def on_card(self, away: Offload) -> bool:
        """Whether the card holds what is left there."""
        return self.device_bytes(away) <= self.target.capacity_bytes

    def in_host(self, away: Offload) -> bool:
        """Whether host memory holds what waits there; on a CPU it is what is predicted of the device already."""
        return host_holds(self.host_bytes(away), self.target)

    def device_bytes(self, away: Offload) -> int:
        """What the card must have."""
        if away not in self._known:
            setting, constants = replace(self.setting, offload=away), self.target.calibration.constants
            self._known[away] = predict(self.workload.shape, setting, self.load, constants).device_bytes
        return self._known[away]

    def host_bytes(self, away: Offload) -> int:
        """What waits in host memory."""
        return host_bytes(self.workload.shape, replace(self.setting, offload=away), [self.load])

    def seconds(self, away: Offload) -> float | None:
        """One epoch alone; None where the card's rates are not known."""
        return epoch_seconds(replace(self.setting, offload=away), self.load, self.workload, self.target)

    def moved_bytes(self, away: Offload) -> float:
        """What comes over the bus in one pass."""
        return bus_bytes(self.workload.shape, replace(self.setting, offload=away), Pass((self.load,)))


def host_holds(host_bytes: int, target: Target) -> bool:
    """Whether a card's part of host memory holds so many bytes."""
    return target.card is None or target.host_room_bytes is None or host_bytes <= target.host_room_bytes


def least_in_host(needs: Needs, permitted: Permitted) -> Offload | None:
    """Returns the offload with which the card holds it that takes least of host memory, be that there or not."""
    return min(held_by_card(permitted, needs.on_card), key=needs.host_bytes, default=None)


def mildest_for(every: Sequence[Needs], permitted: Permitted) -> Offload | None:
    """Returns the mildest offload with which each of these fits the card alone; None where there is none.

    The price of streamed layers is the time of an epoch, then the bytes that are moved, then how much waits.
    """

    def price(away: Offload) -> tuple[float, float, Offload]:
        seconds, moved = sum(one.seconds(away) or 0.0 for one in every), sum(one.moved_bytes(away) for one in every)
        return float(f"{seconds:.6g}"), moved, away  # digits beyond are of the arithmetic

    def on_card(away: Offload) -> bool:
        return all(one.on_card(away) for one in every)

    def in_host(away: Offload) -> bool:
        return all(one.in_host(away) for one in every)

    return mildest(permitted, on_card, in_host, price)


def epoch_seconds(setting: MemorySetting, load: AdapterLoad, workload: Workload, target: Target) -> float | None:
    """One epoch alone, micro-batch by micro-batch of typical length; None where the card's rates are not known."""
    card, training = target.card, workload.training
    if card is None or card.tensor_flops is None or (card.bus_bytes_per_second is None and not setting.offload.is_none):
        return None
    passes = math.ceil(workload.train_rows / training.micro_batch_size)
    seconds = passes * pass_time(workload.shape, setting, Pass((typical(load, workload),)), card).seconds
    updates = steps_per_epoch(workload) * update_seconds(workload.shape, load, card, setting)
    return target.calibration.time_factor * (seconds + updates)


def typical(load: AdapterLoad, workload: Workload) -> AdapterLoad:
    """The load with rows of the data's mean length."""
    mean = max(1, round(workload.train_tokens / workload.train_rows))
    targets = max(1, round(load.rows * mean * workload.target_share))
    return replace(load, tokens=mean, targets=targets)


def steps_per_epoch(workload: Workload) -> int:
    """Optimizer steps that see every training row once."""
    training = workload.training
    return batches.steps_per_epoch(workload.train_rows, training.micro_batch_size, training.gradient_accumulation_steps)
