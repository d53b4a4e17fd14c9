"""What a pass costs beside its tokens, measured where it runs.

It decides whether rows of unlike length share a pass: with 8 billion parameters a pass is dequantization and
arithmetic, and padding is dear; a small model's pass waits for the host's launches, and padding is free.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from search_spaces.trial_config import TrialConfig
from trainables.dataset import Row
from trainables.generation import synchronize
from trainables.packed_lora import PackedModel
from trainables.packed_training import TrainingMember, discard_gradients, run_pass
from trainables.passes import MicroBatch, PassCost, pass_cost

LARGE_PASS_TOKENS = 8192


def measure_pass_cost(
    model: PackedModel,
    new_member: Callable[[TrialConfig, Any], TrainingMember],
    config: TrialConfig,
    rows: Sequence[Row],
    most_tokens: int,
) -> PassCost | None:
    """Times the shortest row's pass, and those of many of the longest row, and of half as many.

    None where `most_tokens` leave no larger pass. Raises torch.OutOfMemoryError where it does not fit after all.
    """
    order = sorted(range(len(rows)), key=lambda number: len(rows[number].tokens))
    short, long = order[0], order[-1]
    few, longest = len(rows[short].tokens), len(rows[long].tokens)
    half = min(most_tokens, LARGE_PASS_TOKENS) // longest // 2
    if half * longest < 2 * few:
        return None
    scratch = new_member(config, (((short,), (long,) * half, (long,) * (2 * half)),))
    passes = (MicroBatch(0, 0, 1, few), MicroBatch(0, 1, half, longest), MicroBatch(0, 2, 2 * half, longest))
    try:
        return pass_cost(*((one.rows * one.longest, _seconds(model, scratch, rows, one)) for one in passes))
    finally:
        discard_gradients([scratch])


def _seconds(model: PackedModel, member: TrainingMember, rows: Sequence[Row], one: MicroBatch) -> float:
    """The second of two passes: kernels are compiled, and memory is taken, by shape."""
    for _ in range(2):
        synchronize(model.devices)
        start = time.perf_counter()
        run_pass(model, [member], rows, [one])
        synchronize(model.devices)
        seconds = time.perf_counter() - start
    return seconds
