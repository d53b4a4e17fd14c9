"""Predicts whether a configuration fits a card, alone or spread over several."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from search_spaces.trial_config import TrialConfig
from study.hardware.gpu_catalogue import GpuCard
from study.hardware.targets import Target
from study.plan.workload import Workload
from trainables.memory.card_split import cards_needed, predict_split
from trainables.memory.prediction import MemoryPrediction, adapter_bytes, allocatable, room
from trainables.memory.setting import AdapterLoad, Attention, MemorySetting
from trainables.precision import compute_precision, refusal


@dataclass(frozen=True)
class Fit:
    """Whether and how one configuration fits.

    `predictions` are those of training alone, one for each of the `cards` that hold the base together; where it fits
    nowhere, of one card and `cards` is None. `adapter_bytes` is what it adds to a card, in a pack too, at most the
    room. `refusal` says why the card should not compute in the precision at all.
    """

    config: TrialConfig
    setting: MemorySetting
    load: AdapterLoad
    predictions: tuple[MemoryPrediction, ...]
    cards: int | None
    adapter_bytes: int
    room_bytes: int
    capacity_bytes: int  # the highest allocator's peak that a card can hold
    refusal: str | None = None

    @property
    def fits(self) -> bool:
        """Whether it may be admitted."""
        return self.cards is not None and self.refusal is None

    @property
    def peak_memory_bytes(self) -> int:
        """Of training alone, as it is measured: the sum of the cards' own peaks."""
        return sum(self.components.values())

    @property
    def components(self) -> dict[str, int]:
        """Its bytes by name, summed over the cards."""
        total: Counter[str] = Counter()
        for one in self.predictions:
            total.update(one.components)
        return dict(total)

    @property
    def largest(self) -> MemoryPrediction:
        """The prediction of the card that holds most."""
        return max(self.predictions, key=lambda one: one.needed_bytes)


def memory_setting(precision: str, workload: Workload, target: Target) -> MemorySetting:
    """How a base in that precision is kept and run on the target."""
    card = target.card
    return MemorySetting(
        precision=precision,
        compute_precision=compute_precision(precision, target.processor),
        double_quantization=workload.double_quantization,
        gradient_checkpointing=workload.training.gradient_checkpointing,
        device="cuda" if card else "cpu",
        attention=_attention(workload, card) if card else "cpu",
    )


def load_of(config: TrialConfig, workload: Workload) -> AdapterLoad:
    """The adapter with the largest micro-batch that the data have."""
    rows = workload.training.micro_batch_size
    tokens = rows * workload.longest
    return AdapterLoad.of(config, rows, workload.longest, max(1, min(tokens, round(tokens * workload.target_share))))


def fit(config: TrialConfig, workload: Workload, target: Target) -> Fit:
    """Predicts one configuration alone on the target, over as many cards of one node as it takes."""
    setting = memory_setting(config.precision, workload, target)
    load = load_of(config, workload)
    shape, constants = workload.shape, target.calibration.constants
    capacity = target.capacity_bytes
    cards = cards_needed(shape, setting, load, capacity, target.cards_together, constants)
    own, left = adapter_bytes(shape, setting, load, constants), room(shape, setting, capacity, constants)
    return Fit(
        config=config,
        setting=setting,
        load=load,
        predictions=predict_split(shape, setting, load, cards or 1, constants),
        cards=cards,
        adapter_bytes=min(own, left) if cards == 1 else own,  # what fits alone has the whole room
        room_bytes=left,
        capacity_bytes=allocatable(capacity, constants),
        refusal=refusal(config.precision, target.processor, workload.force_bf16),
    )


def infeasible_facts(fit: Fit) -> dict[str, Any]:
    """What a record says of a configuration that was predicted not to fit, JSON-ready: the moment that needs most,
    and its components, which sum to the bytes asked for."""
    moment, components = fit.largest.largest_moment
    return {
        "moment": moment,
        "requested_bytes": fit.largest.needed_bytes,
        "available_bytes": fit.capacity_bytes,
        "source": "predicted",
        "components": dict(components),
    }


def _attention(workload: Workload, card: GpuCard) -> Attention:
    """Which kernel attends. FlashAttention 2 needs compute capability 8.0; below it only the fused decoder, which
    repeats keys and values for all heads, is served by the memory-efficient one."""
    if card.processor.has_bf16:
        return "flash"
    shared = workload.shape.key_value_heads < workload.shape.attention_heads
    return "math" if shared and not workload.shape.is_plain_llama else "memory_efficient"
