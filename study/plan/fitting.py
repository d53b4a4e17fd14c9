"""Predicts whether a configuration fits a card, alone or spread over several."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from search_spaces.layer_ranges import Layers
from search_spaces.resolution import linear_name
from search_spaces.trial_config import TrialConfig
from study.hardware.targets import Target
from study.plan.offloading.ladder import Permitted
from study.plan.offloading.needs import Needs, host_holds, least_in_host, mildest_for
from study.plan.workload import Workload
from trainables.base_model.shape import ModelShape
from trainables.memory.card_split import cards_needed, predict_split
from trainables.memory.host_memory import host_bytes
from trainables.memory.offload import RESIDENT, Offload
from trainables.memory.prediction import MemoryPrediction, adapter_bytes, base_bytes, predict, room
from trainables.memory.setting import AdapterLoad, MemoryConstants, MemorySetting
from trainables.precision import attention_kernel, compute_precision, refusal

STATE = ("adapter_weights", "gradients", "optimizer_state")


@dataclass(frozen=True)
class Fit:
    """Whether and how one configuration fits.

    `predictions` are those of training alone, one for each of the `cards` that hold the base together; where it fits
    nowhere, of one card and `cards` is None. `adapter_bytes` is what it adds to a card, in a pack too, at most the
    room. Where one card holds the base, a part may wait in host memory. `refusal` says why the card should not compute
    in the precision at all.
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
    host_base_bytes: int = 0  # in host memory, whatever adapters train
    host_adapter_bytes: int = 0  # what it adds to them
    host_room_bytes: int | None = None  # what may wait in host memory; None: not known
    least: Offload = RESIDENT  # where it fits nowhere: all that may wait
    lacking: Offload | None = None  # with which a card would hold it, and its machine has not the memory for the rest
    refusal: str | None = None

    @property
    def fits(self) -> bool:
        """Whether it may be admitted."""
        return self.cards is not None and self.refusal is None

    @property
    def offload(self) -> Offload:
        """What waits in host memory."""
        return self.setting.offload

    @property
    def lacks_host_memory_alone(self) -> bool:
        """Whether a card has room, and its machine has not the memory for what the study asks to wait there."""
        return self.lacking is not None and self.device_bytes <= self.capacity_bytes

    @property
    def host_bytes(self) -> int:
        """What waits in host memory where it trains alone."""
        return self.host_base_bytes + self.host_adapter_bytes

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


def memory_setting(precision: str, workload: Workload, target: Target, offload: Offload = RESIDENT) -> MemorySetting:
    """How a base in that precision is kept and run on the target, with so much of the training in host memory."""
    compute = compute_precision(precision, target.processor)
    return MemorySetting(
        precision=precision,
        compute_precision=compute,
        double_quantization=workload.double_quantization,
        gradient_checkpointing=workload.training.gradient_checkpointing,
        device="cuda" if target.card else "cpu",
        attention=attention_kernel(target.processor, compute, workload.shape.head_dim),
        offload=offload,
        optimizer=workload.training.optimizer,
    )


def load_of(config: TrialConfig, workload: Workload) -> AdapterLoad:
    """The adapter with the largest micro-batch that the data have."""
    rows = workload.training.micro_batch_size
    tokens = rows * workload.longest
    targets = max(1, min(tokens, round(tokens * workload.target_share)))
    load = AdapterLoad.of(config, rows, workload.longest, targets)
    return load.carried_by(_updated(workload.shape, tuple(config.target_modules), config.layers))


@lru_cache(maxsize=256)
def _updated(shape: ModelShape, target_modules: tuple[str, ...], layers: Layers) -> list[list[str]]:
    """What an adapter updates in each of the model's layers, by the names that the shape has for it."""
    found: list[list[str]] = [[] for _ in range(shape.layers)]
    for one in filter(None, map(linear_name, shape.targets(target_modules, layers))):
        found[one.layer] += [name for name in shape.linears if one.full.endswith(f".{name}")]
    return found


def fit(config: TrialConfig, workload: Workload, target: Target) -> Fit:
    """Predicts one configuration alone on the target, with the mildest offload with which it fits.

    One card with a part in host memory is preferred to several that hold all where an epoch takes less of their time
    together, or where no time is known, several cards. What fits nowhere is predicted with nothing in host memory that
    is not asked for there.
    """
    permitted, load = Permitted.of(workload, target), load_of(config, workload)
    needs = Needs(memory_setting(config.precision, workload, target), load, workload, target)
    refused = refusal(config.precision, target.processor, workload.force_bf16) is not None
    chosen = None if refused else mildest_for([needs], permitted)
    if chosen is not None:
        spread = _spread(config, needs, chosen) if chosen.streams and not permitted.fewest else None
        return spread or fit_with(config, workload, target, chosen, load)
    first = fit_with(config, workload, target, permitted.first, load)
    if first.cards or refused or permitted.everything == permitted.first:
        return first
    lacking = None if target.host_room_bytes is None else least_in_host(needs, permitted)
    return replace(first, lacking=lacking, least=permitted.everything)


def _spread(config: TrialConfig, needs: Needs, chosen: Offload) -> Fit | None:
    """The fit on several cards, of which one works at a time, where they take no more time together than one so."""
    seconds, resident = needs.seconds(chosen), needs.seconds(RESIDENT)
    together = needs.target.cards_together
    most = together if seconds is None or not resident else min(together, int(seconds / resident))
    if most < 2:
        return None
    found = fit_with(config, needs.workload, replace(needs.target, per_node=most), RESIDENT, needs.load)
    return found if found.fits else None


def fit_with(
    config: TrialConfig, workload: Workload, target: Target, offload: Offload, load: AdapterLoad | None = None
) -> Fit:
    """Predicts one configuration alone on the target with this offload; with none, over as many cards as it takes."""
    load = load or load_of(config, workload)
    setting = memory_setting(config.precision, workload, target, offload)
    shape, constants, capacity = workload.shape, target.calibration.constants, target.capacity_bytes
    predictions: tuple[MemoryPrediction, ...] = (predict(shape, setting, load, constants),)
    cards: int | None = 1 if predictions[0].device_bytes <= capacity else None
    if cards is None and offload.is_none and target.cards_together > 1:
        cards = cards_needed(shape, setting, load, capacity, target.cards_together, constants)
        predictions = predict_split(shape, setting, load, cards, constants) if cards else predictions
    host_base = 0 if offload.is_none else host_bytes(shape, setting, [])
    host_own = 0 if offload.is_none else host_bytes(shape, setting, [load]) - host_base
    lacks = cards == 1 and not host_holds(host_base + host_own, target)
    cards = None if lacks else cards
    # In a pack its rows keep what those of the deepest adapter do.
    deep = load if load.layers is None else replace(load, reach=shape.layers)
    own, (held_by_base, left) = (
        adapter_bytes(shape, setting, deep, constants),
        _base(shape, setting, capacity, constants),
    )
    held = min(own, left) if cards == 1 else own  # what fits alone has the whole room
    return Fit(
        config=config,
        setting=setting,
        load=load,
        predictions=predictions,
        cards=cards,
        adapter_bytes=held,
        state_bytes=min(held, sum(map(_state_bytes, predictions))),
        room_bytes=left,
        base_bytes=held_by_base,
        capacity_bytes=capacity,
        host_base_bytes=host_base,
        host_adapter_bytes=host_own,
        host_room_bytes=target.host_room_bytes,
        lacking=offload if lacks else None,
        refusal=refusal(config.precision, target.processor, workload.force_bf16),
    )


@lru_cache(maxsize=256)
def _base(shape: ModelShape, setting: MemorySetting, capacity: int, constants: MemoryConstants) -> tuple[int, int]:
    """What is on a card whatever adapters train there, and what is left for them."""
    return base_bytes(shape, setting, constants), room(shape, setting, capacity, constants)


def _state_bytes(one: MemoryPrediction) -> int:
    """What an adapter holds of a card from its first step to its last: moments too, unless they come for updates."""
    return min(sum(moment.get(name, 0) for name in STATE) for moment in one.moments.values())


def infeasible_facts(fit: Fit) -> dict[str, Any]:
    """What a record says of a configuration that was predicted not to fit, JSON-ready: the moment that needs most, and
    its components, fragments and context among them, which sum to the bytes asked for: a card's memory.

    Where host memory alone is short, its bytes.
    """
    if fit.lacks_host_memory_alone:
        return {
            "moment": "host_memory",
            "requested_bytes": fit.host_bytes,
            "available_bytes": fit.host_room_bytes or 0,
            "source": "predicted",
            "components": {"host_memory": fit.host_bytes},
        }
    return {
        "moment": fit.largest.largest_moment[0],
        "requested_bytes": fit.device_bytes,
        "available_bytes": fit.capacity_bytes,
        "source": "predicted",
        "components": dict(fit.largest.device_components),
    }
