"""Names the changes that would make a configuration fit a card."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from search_spaces.trial_config import TrialConfig
from study.hardware.gpu_catalogue import catalogue
from study.hardware.targets import HOST_RESERVE_BYTES, HOST_SHARE, Target
from study.plan.fitting import Fit, fit
from study.plan.offloading.words import lacking_bytes, price_of, times, waiting
from study.plan.workload import Workload
from study.records.units import GIB, format_bytes

HOST_MEMORY = "hardware.base_in_host_memory: auto"
FEWEST_TOKENS, LOWEST_RANK = 128, 4  # to which a remedy shortens rows, and lowers the rank
MOST_CARDS = 8  # of one node, that a remedy asks for


def remedies(config: TrialConfig, workload: Workload, target: Target) -> tuple[str, ...]:
    """What would make a configuration fit, each by itself; where nothing does, all together, or the smallest card.

    First what costs time alone, with its price, then what changes the trial. What fits only with more in host memory
    than its phase has there may have a study of its own.
    """
    own = fit(config, workload, target)
    if own.fits:
        return () if own.offload.is_none else (f"a study of its own: {_with(own, workload)}",)
    alone = []
    for kind in _changes(config, workload):
        tried = ((text, fit(one, load, target), load) for text, one, load in kind)
        fitting = next(((text, one, load) for text, one, load in tried if one.fits), None)
        alone += [_priced(*fitting, workload, target)] if fitting else []
    alone += _more_memory(own, workload, target)
    over_more = fit(config, workload, replace(target, per_node=MOST_CARDS, count=MOST_CARDS))
    if over_more.fits and target.card is not None:
        alone.append(f"{over_more.cards} such cards in one node")
    if alone:
        return tuple(alone)
    return tuple(_together(config, workload, target)) or tuple(_larger_card(config, workload, target))


Change = tuple[str, TrialConfig, Workload]


def _changes(config: TrialConfig, workload: Workload) -> Iterator[Iterator[Change]]:
    """Ways to take less, by kind, those that cost only time first; within a kind the smallest change comes first."""
    training = workload.training

    def with_training(text: str, **changes: Any) -> Change:
        return f"training.{text}", config, replace(workload, training=replace(training, **changes))

    rows = range(training.micro_batch_size - 1, 0, -1)
    yield (with_training(f"micro_batch_size: {count}", micro_batch_size=count) for count in rows)
    if not training.gradient_checkpointing:
        yield iter([with_training("gradient_checkpointing: true", gradient_checkpointing=True)])
    if workload.base_in_host_memory != "auto":
        yield iter([(HOST_MEMORY, config, replace(workload, base_in_host_memory="auto"))])
    if training.optimizer == "adamw":
        yield iter([with_training("optimizer: adamw_8bit", optimizer="adamw_8bit")])
    tokens = _halves(workload.longest, FEWEST_TOKENS)
    yield ((f"dataset.max_tokens: {count}", config, replace(workload, longest=count)) for count in tokens)
    if config.precision != "nf4":
        yield iter([("precision: nf4", replace(config, precision="nf4"), workload)])
    yield ((f"rank: {rank}", replace(config, rank=rank), workload) for rank in _halves(config.rank, LOWEST_RANK))


def _priced(text: str, one: Fit, changed: Workload, workload: Workload, target: Target) -> str:
    """A remedy, with what then waits in host memory, and its price against a training with everything on the card."""
    costs_time_alone = text.startswith(("training.", HOST_MEMORY)) and one.cards == 1
    waits = _with(one, changed) if not one.offload.is_none else ""
    price = times(price_of(one, changed, target, workload)) if costs_time_alone else ""
    notes = ", ".join(filter(None, (waits, price)))
    return f"{text} ({notes})" if notes else text


def _with(one: Fit, workload: Workload) -> str:
    return f"with {waiting(one.offload, workload.shape.layers)} in host memory, {format_bytes(one.host_bytes)}"


def _more_memory(one: Fit, workload: Workload, target: Target) -> list[str]:
    """The host memory with which a card would hold it, where that is short."""
    if one.lacking is None:
        return []
    needed = lacking_bytes(one, workload, target)
    return [f"a machine with {math.ceil((needed + HOST_RESERVE_BYTES) / HOST_SHARE / GIB)} GiB of host memory a card"]


def _halves(start: int, lowest: int) -> Iterator[int]:
    while (start := start // 2) >= lowest:
        yield start


def _together(config: TrialConfig, workload: Workload, target: Target) -> Iterator[str]:
    """The least of everything at once."""
    training = replace(workload.training, micro_batch_size=1, gradient_checkpointing=True)
    least = replace(workload, training=training, longest=min(workload.longest, FEWEST_TOKENS))
    if fit(replace(config, precision="nf4"), least, target).fits:
        yield f"nf4, micro_batch_size 1, checkpointing, and max_tokens {least.longest}, all together"


def _larger_card(config: TrialConfig, workload: Workload, target: Target) -> Iterator[str]:
    for card in sorted(catalogue().values(), key=lambda card: card.memory_bytes):
        larger = replace(target, card=card, memory_bytes=card.memory_bytes, limit_bytes=None, per_node=1)
        if fit(config, workload, larger).fits:
            yield f"a card of {format_bytes(card.memory_bytes)} ({card.key})"
            return
