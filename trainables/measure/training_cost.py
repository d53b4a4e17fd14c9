"""Measures what training one configuration alone costs: peak memory, speed and energy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from trainables.dataset.batches import Plan
from trainables.dataset.rows import Row
from trainables.measure.agreement import until_agreed
from trainables.measure.generation import generated_tokens_per_second, synchronize
from trainables.measure.nvml import device_energy_joules, summed
from trainables.measure.peak_memory import peak_memory
from trainables.packed.member import TrainingMember, apply_gradients
from trainables.packed.packed_model import PackedModel
from trainables.packed.training import micro_step

TYPICAL_MICRO_BATCHES = {"cpu": 1, "cuda": 2}  # that speed is taken on
PATIENCE_SECONDS = 1.0  # after which speed is taken as it is: something else disturbs it


@dataclass(frozen=True)
class CostOrigin:
    """The study that measured a cost which a later one has taken over: its directory, and when (ISO 8601, UTC)."""

    directory: str
    measured_at: str


@dataclass(frozen=True)
class TrainingCost:
    """The cost of training one configuration alone; it depends on neither learning rate nor seed.

    Bytes and joules are sums over the cards that hold the base model; `card_peak_bytes` are the allocator's peaks of
    each, in the order of the model's layers (empty on a CPU). `origin` is None where it was measured in this study.
    """

    peak_memory_bytes: int
    peak_reserved_bytes: int | None
    peak_device_bytes: int | None
    seconds_per_token: float
    seconds_per_update: float  # clipping and AdamW, once an optimizer step
    joules_per_token: float | None
    generated_tokens_per_second: float | None
    card_peak_bytes: tuple[int, ...] = ()
    origin: CostOrigin | None = None

    def seconds_per_epoch(self, tokens: int, steps: int) -> float:
        """The time of `steps` optimizer steps over `tokens` tokens, computed from what was measured."""
        return tokens * self.seconds_per_token + steps * self.seconds_per_update


class NotFiniteError(Exception):
    """Loss or gradients are not finite at an untrained adapter, so that nothing can be trained in this precision."""


def measure_training_cost(
    model: PackedModel, member: TrainingMember, rows: Sequence[Row], prompt: Sequence[int], new_tokens: int
) -> TrainingCost:
    """Trains a scratch member alone for a few micro-batches, on which memory and time are taken.

    Typical micro-batches are timed until two rounds of them agree to within 10 %, which leaves a few per cent to their
    mean, or for about a second.
    The member's plan is `measuring_plan`'s. Raises torch.OutOfMemoryError where it does not fit alone,
    NotFiniteError where loss or gradients are not finite.
    """
    rounds = _rounds(model, member, rows)  # before the peak, which empties the caches
    with peak_memory(model.devices) as peak:
        micro_step(model, [member], rows, len(member.plan[0]))  # the longest batch, with gradients there: the peak
        start = time.perf_counter()
        apply_gradients(member, rows, 0.0)
        synchronize(model.devices)
        update_seconds = time.perf_counter() - start
    compiled = model.device.type == "cpu"  # a processor's kernels are, for all shapes
    speed = generated_tokens_per_second(model, member.adapter, prompt, new_tokens, compiled) if new_tokens else None
    tokens = len(rounds) * sum(len(rows[number].tokens) for micro in member.plan[0] for number in micro)
    joules = [one.joules for one in rounds if one.joules is not None]
    return TrainingCost(
        *peak.bytes,
        seconds_per_token=sum(one.seconds for one in rounds) / tokens,
        seconds_per_update=update_seconds,
        joules_per_token=sum(joules) / tokens if len(joules) == len(rounds) else None,
        generated_tokens_per_second=speed,
        card_peak_bytes=peak.by_card,
    )


def measuring_plan(rows: Sequence[Row], micro_batch_size: int, typical: int = 2) -> Plan:
    """A step of so many typical micro-batches, then one of the same that ends with the longest one.

    Typical micro-batches of equal lengths are one: a second would repeat it.
    """
    order = sorted(range(len(rows)), key=lambda number: len(rows[number].tokens))
    longest = tuple(order[-micro_batch_size:])
    count = typical * micro_batch_size
    spread = [order[len(order) * (2 * k + 1) // (2 * count)] for k in range(count)]
    found = [tuple(spread[k::typical]) for k in range(typical)]
    micro_batches = tuple({tuple(len(rows[number].tokens) for number in one): one for one in found}.values())
    return (micro_batches, (*micro_batches, longest))


@dataclass(frozen=True)
class _Round:
    """The typical micro-batches, each once: seconds, joules (None without a counter), and the mean loss."""

    seconds: float
    joules: float | None
    loss: float


def _rounds(model: PackedModel, member: TrainingMember, rows: Sequence[Row]) -> tuple[_Round, ...]:
    """The rounds that count: two that agree, else the last. The member then is in the second step of its plan.

    The first round compiles a card's kernels, by shape; it counts only if the second is no faster.
    """
    first = _round(model, member, rows)
    result = apply_gradients(member, rows, first.loss)
    if result.divergence:
        raise NotFiniteError(f"{result.divergence}, while it was measured alone before its training")
    return until_agreed(first, lambda: _round(model, member, rows), lambda one: one.seconds, PATIENCE_SECONDS)


def _round(model: PackedModel, member: TrainingMember, rows: Sequence[Row]) -> _Round:
    synchronize(model.devices)
    start, energy = time.perf_counter(), summed(device_energy_joules, model.devices)
    losses = [micro_step(model, [member], rows, micro)[0] for micro in range(len(member.plan[0]))]
    synchronize(model.devices)
    seconds, after = time.perf_counter() - start, summed(device_energy_joules, model.devices)
    joules = None if energy is None or after is None else after - energy
    return _Round(seconds, joules, float(sum(losses)))
