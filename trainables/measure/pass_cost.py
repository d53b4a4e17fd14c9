"""Measures what a pass through the base model costs beside its tokens, on the device where it runs.

It decides whether rows of unlike length share a pass, and adapters of unlike rank a product: with 8 billion parameters
a pass is dequantization and arithmetic, and padding is dear; a small model's pass waits for the host's launches, and
padding is free.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from search_spaces.trial_config import TrialConfig
from trainables.dataset.rows import Row
from trainables.limits import USUAL_PASS_TOKENS
from trainables.measure.agreement import agree
from trainables.measure.generation import synchronize
from trainables.packed.member import TrainingMember, discard_gradients
from trainables.packed.packed_model import PackedModel
from trainables.packed.passes import MicroBatch, PassCost, pass_cost
from trainables.packed.training import run_pass

REPEAT_SECONDS = 0.4  # short passes are timed again for so long: what else the machine does would decide


def measure_pass_cost(
    model: PackedModel,
    new_member: Callable[[TrialConfig, Any], TrainingMember],
    config: TrialConfig,
    rows: Sequence[Row],
    most_tokens: int,
) -> PassCost | None:
    """Times the shortest row's pass, those of many of the longest row and of half as many, and the many in two runs.

    None where `most_tokens` leave no larger pass. Raises torch.OutOfMemoryError where it does not fit after all.
    """
    order = sorted(range(len(rows)), key=lambda number: len(rows[number].tokens))
    short, long = order[0], order[-1]
    few, longest = len(rows[short].tokens), len(rows[long].tokens)
    half = min(most_tokens, USUAL_PASS_TOKENS["cuda"]) // longest // 2
    if half * longest < 2 * few:
        return None
    unlike = replace(config, rank=config.rank // 2 or 2)
    pair = [new_member(one, (((short,), (long,) * half, (long,) * (2 * half)),)) for one in (config, unlike)]
    small, middle = MicroBatch(0, 0, 1, few), MicroBatch(0, 1, half, longest)
    large = MicroBatch(0, 2, 2 * half, longest)
    try:
        one_run = [(one.rows * one.longest, _seconds(model, pair, rows, [one])) for one in (small, middle, large)]
        apart_seconds = _seconds(model, pair, rows, [middle, replace(middle, member=1)])
        return pass_cost(one_run[0], one_run[1], one_run[2], apart_seconds)
    finally:
        discard_gradients(pair)


def _seconds(
    model: PackedModel, members: Sequence[TrainingMember], rows: Sequence[Row], one: Sequence[MicroBatch]
) -> float:
    """The shortest of a few passes. The first may compile kernels and take memory, by shape: it may be the only other.

    They end once the two shortest agree, and short ones not before `REPEAT_SECONDS`.
    """
    taken = [_timed(model, members, rows, one), _timed(model, members, rows, one)]
    while sum(taken) < REPEAT_SECONDS or not (agree(*sorted(taken)[:2]) or sum(taken[1:]) >= REPEAT_SECONDS):
        taken.append(_timed(model, members, rows, one))
    return min(taken)


def _timed(
    model: PackedModel, members: Sequence[TrainingMember], rows: Sequence[Row], one: Sequence[MicroBatch]
) -> float:
    synchronize(model.devices)
    start = time.perf_counter()
    run_pass(model, members, rows, one)
    synchronize(model.devices)
    return time.perf_counter() - start
