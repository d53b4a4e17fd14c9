"""Predicts whether a configuration fits a card, alone or spread over several."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from search_spaces.resolution import linear_name
from search_spaces.trial_config import TrialConfig
from study.hardware.targets import Target
from study.plan.workload import Workload
from trainables.base_model.shape import ModelShape
from trainables.memory.card_split import cards_needed, predict_split
from trainables.memory.prediction import MemoryPrediction, adapter_bytes, base_bytes, room
from trainables.memory.setting import AdapterLoad, MemorySetting
from trainables.memory.weights import ModelPart, state_components
from trainables.precision import attention_kernel, compute_precision, refusal


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
    state_bytes: int  # of these, its weights, gradients and moments
    room_bytes: int
    base_bytes: int  # what is on a card whatever adapters train there
    capacity_bytes: int  # what a card has, the allocator's fragments and CUDA's context included
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
        return max(self.predictions, key=lambda one: one.device_bytes)

    @property
    def device_bytes(self) -> int:
        """What the card that holds most must have: the peak, the allocator's fragments and CUDA's context."""
        return self.largest.device_bytes


def memory_setting(precision: str, workload: Workload, target: Target) -> MemorySetting:
    """How a base in that precision is kept and run on the target."""
    compute = compute_precision(precision, target.processor)
    return MemorySetting(
        precision=precision,
        compute_precision=compute,
        double_quantization=workload.double_quantization,
        gradient_checkpointing=workload.training.gradient_checkpointing,
        device="cuda" if target.card else "cpu",
        attention=attention_kernel(target.processor, compute, workload.shape.head_dim),
    )


def load_of(config: TrialConfig, workload: Workload) -> AdapterLoad:
    """The adapter with the largest micro-batch that the data have."""
    rows = workload.training.micro_batch_size
    tokens = rows * workload.longest
    targets = max(1, min(tokens, round(tokens * workload.target_share)))
    load = AdapterLoad.of(config, rows, workload.longest, targets)
    return load.carried_by(_updated(workload.shape, config))


def _updated(shape: ModelShape, config: TrialConfig) -> list[list[str]]:
    """What the adapter updates in each of the model's layers, by the names that the shape has for it."""
    found: list[list[str]] = [[] for _ in range(shape.layers)]
    for one in filter(None, map(linear_name, shape.targets(config.target_modules, config.layers))):
        found[one.layer] += [name for name in shape.linears if one.full.endswith(f".{name}")]
    return found


def fit(config: TrialConfig, workload: Workload, target: Target) -> Fit:
    """Predicts one configuration alone on the target, over as many cards of one node as it takes."""
    setting = memory_setting(config.precision, workload, target)
    load = load_of(config, workload)
    shape, constants = workload.shape, target.calibration.constants
    capacity = target.capacity_bytes
    cards = cards_needed(shape, setting, load, capacity, target.cards_together, constants)
    # In a pack its rows keep what those of the deepest adapter do.
    deep = load if load.layers is None else replace(load, reach=shape.layers)
    own, left = adapter_bytes(shape, setting, deep, constants), room(shape, setting, capacity, constants)
    held = min(own, left) if cards == 1 else own  # what fits alone has the whole room
    state = sum(state_components(shape, [load], ModelPart(shape.layers)).values())
    return Fit(
        config=config,
        setting=setting,
        load=load,
        predictions=predict_split(shape, setting, load, cards or 1, constants),
        cards=cards,
        adapter_bytes=held,
        state_bytes=min(held, state),
        room_bytes=left,
        base_bytes=base_bytes(shape, setting, constants),
        capacity_bytes=capacity,
        refusal=refusal(config.precision, target.processor, workload.force_bf16),
    )


def infeasible_facts(fit: Fit) -> dict[str, Any]:
    """What a record says of a configuration that was predicted not to fit, JSON-ready: the moment that needs most,
    and its components, fragments and context among them, which sum to the bytes asked for: a card's memory."""
    return {
        "moment": fit.largest.largest_moment[0],
        "requested_bytes": fit.device_bytes,
        "available_bytes": fit.capacity_bytes,
        "source": "predicted",
        "components": dict(fit.largest.device_components),
    }
