"""Names the changes that would make a configuration fit a card."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from search_spaces.trial_config import TrialConfig
from study.hardware.gpu_catalogue import catalogue
from study.hardware.targets import Target
from study.plan.fitting import fit
from study.plan.workload import Workload
from study.records.units import format_bytes

FEWEST_TOKENS, LOWEST_RANK = 128, 4  # to which a remedy shortens rows, and lowers the rank
MOST_CARDS = 8  # of one node, that a remedy asks for


def remedies(config: TrialConfig, workload: Workload, target: Target) -> tuple[str, ...]:
    """What would make a configuration fit, each by itself; where nothing does, all together, or the smallest card."""
    if fit(config, workload, target).fits:
        return ()
    alone = []
    for kind in _changes(config, workload):
        fitting = (text for text, one, load in kind if fit(one, load, target).fits)
        alone += [text for text in (next(fitting, None),) if text]
    over_more = fit(config, workload, replace(target, per_node=MOST_CARDS, count=MOST_CARDS))
    if target.card is not None and over_more.fits:
        alone.append(f"{over_more.cards} such cards in one node")
    if alone:
        return tuple(alone)
    return tuple(_together(config, workload, target)) or tuple(_larger_card(config, workload, target))


def _changes(config: TrialConfig, workload: Workload) -> Iterator[Iterator[tuple[str, TrialConfig, Workload]]]:
    """Ways to take less, by kind; within a kind the smallest change comes first."""
    training = workload.training

    def with_training(text: str, **changes: Any) -> tuple[str, TrialConfig, Workload]:
        return f"training.{text}", config, replace(workload, training=replace(training, **changes))

    rows = range(training.micro_batch_size - 1, 0, -1)
    yield (with_training(f"micro_batch_size: {count}", micro_batch_size=count) for count in rows)
    if not training.gradient_checkpointing:
        yield iter([with_training("gradient_checkpointing: true", gradient_checkpointing=True)])
    tokens = _halves(workload.longest, FEWEST_TOKENS)
    yield ((f"dataset.max_tokens: {count}", config, replace(workload, longest=count)) for count in tokens)
    if config.precision != "nf4":
        yield iter([("precision: nf4", replace(config, precision="nf4"), workload)])
    yield ((f"rank: {rank}", replace(config, rank=rank), workload) for rank in _halves(config.rank, LOWEST_RANK))


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
