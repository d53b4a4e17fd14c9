"""Measures what training one configuration alone costs: peak memory, speed and energy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from trainables.dataset.batches import Plan
from trainables.dataset.rows import Row
from trainables.measure.generation import generated_tokens_per_second, synchronize
from trainables.measure.nvml import device_energy_joules, summed
from trainables.measure.peak_memory import peak_memory
from trainables.packed.member import TrainingMember, apply_gradients
from trainables.packed.packed_model import PackedModel
from trainables.packed.training import micro_step

TYPICAL_MICRO_BATCHES = {"cpu": 1, "cuda": 2}  # that speed is taken on


@dataclass(frozen=True)
class TrainingCost:
    """The cost of training one configuration alone; it depends on neither learning rate nor seed.

    Bytes and joules are sums over the cards that hold the base model; `card_peak_bytes` are the allocator's peaks of
    each, in the order of the model's layers (empty on a CPU).
    """

    peak_memory_bytes: int
    peak_reserved_bytes: int | None
    peak_device_bytes: int | None
    seconds_per_token: float
    seconds_per_update: float  # clipping and AdamW, once an optimizer step
    joules_per_token: float | None
    generated_tokens_per_second: float | None
    card_peak_bytes: tuple[int, ...] = ()

    def seconds_per_epoch(self, tokens: int, steps: int) -> float:
        """The time of `steps` optimizer steps over `tokens` tokens, computed from what was measured."""
        return tokens * self.seconds_per_token + steps * self.seconds_per_update


class NotFiniteError(Exception):
    """Loss or gradients are not finite at an untrained adapter, so that nothing can be trained in this precision."""


def measure_training_cost(
    model: PackedModel, member: TrainingMember, rows: Sequence[Row], prompt: Sequence[int], new_tokens: int
) -> TrainingCost:
    """Trains a scratch member alone for a few micro-batches, on which memory and time are taken.

    The member's plan is `measuring_plan`'s. Raises torch.OutOfMemoryError where it does not fit alone,
    NotFiniteError where loss or gradients are not finite.
    """
    _warm_up(model, member, rows)
    seconds, joules, tokens = _timed_micro_steps(model, member, rows)  # before the peak, which empties the caches
    with peak_memory(model.devices) as peak:
        micro_step(model, [member], rows, len(member.plan[0]))  # the longest batch, with gradients there: the peak
        start = time.perf_counter()
        apply_gradients(member, rows, 0.0)
        synchronize(model.devices)
        update_seconds = time.perf_counter() - start
    speed = generated_tokens_per_second(model, member.adapter, prompt, new_tokens) if new_tokens else None
    return TrainingCost(
        *peak.bytes,
        seconds_per_token=seconds / tokens,
        seconds_per_update=update_seconds,
        joules_per_token=None if joules is None else joules / tokens,
        generated_tokens_per_second=speed,
        card_peak_bytes=peak.by_card,
    )


def measuring_plan(rows: Sequence[Row], micro_batch_size: int, typical: int = 2) -> Plan:
    """A step of so many typical micro-batches to warm up on, then one of the same that ends with the longest one."""
    order = sorted(range(len(rows)), key=lambda number: len(rows[number].tokens))
    longest = tuple(order[-micro_batch_size:])
    count = typical * micro_batch_size
    spread = [order[len(order) * (2 * k + 1) // (2 * count)] for k in range(count)]
    micro_batches = tuple(tuple(spread[k::typical]) for k in range(typical))
    return (micro_batches, (*micro_batches, longest))


def _warm_up(model: PackedModel, member: TrainingMember, rows: Sequence[Row]) -> None:
    """One step over every typical micro-batch, since a card's kernels are compiled by shape."""
    losses = [float(micro_step(model, [member], rows, micro)[0]) for micro in range(len(member.plan[0]))]
    result = apply_gradients(member, rows, sum(losses))
    if result.divergence:
        raise NotFiniteError(f"{result.divergence}, while it was measured alone before its training")


def _timed_micro_steps(
    model: PackedModel, member: TrainingMember, rows: Sequence[Row]
) -> tuple[float, float | None, int]:
    """Seconds, joules (None without a counter) and tokens of the typical micro-batches."""
    synchronize(model.devices)
    start, energy = time.perf_counter(), summed(device_energy_joules, model.devices)
    typical = member.plan[0]
    for micro in range(len(typical)):
        micro_step(model, [member], rows, micro)
    synchronize(model.devices)
    seconds, after = time.perf_counter() - start, summed(device_energy_joules, model.devices)
    tokens = sum(len(rows[number].tokens) for micro in typical for number in micro)
    return seconds, None if energy is None or after is None else after - energy, tokens
