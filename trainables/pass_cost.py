"""What a pass costs beside its tokens, measured where it runs.

It decides whether rows of unlike length share a pass: with 8 billion parameters a pass is dequantization and
arithmetic, and padding is dear; a small model's pass waits for the host's launches, and padding is free.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from search_spaces.trial_config import TrialConfig
from trainables.dataset import Row
from trainables.generation import synchronize
from trainables.packed_lora import PackedModel
from trainables.packed_training import TrainingMember, discard_gradients, run_pass
from trainables.passes import MicroBatch, fixed_in_tokens

LARGE_PASS_TOKENS = 8192
REPEATS = 2  # of each size, after one to warm up; the faster counts


def measure_fixed_tokens(
    model: PackedModel,
    new_member: Callable[[TrialConfig, Any], TrainingMember],
    config: TrialConfig,
    rows: Sequence[Row],
    most_tokens: int,
) -> int | None:
    """A pass' fixed cost in tokens' worth of work: the shortest row's pass against one of many of the longest.

    None where `most_tokens` leave no larger pass, or it does not fit into memory after all.
    """
    order = sorted(range(len(rows)), key=lambda number: len(rows[number].tokens))
    short, long = order[0], order[-1]
    few, longest = len(rows[short].tokens), len(rows[long].tokens)
    count = min(most_tokens // 2, LARGE_PASS_TOKENS) // longest
    if count * longest < 4 * few:
        return None
    scratch = new_member(config, (((short,), (long,) * count),))
    try:
        few_seconds = _seconds(model, scratch, rows, MicroBatch(0, 0, 1, few))
        many_seconds = _seconds(model, scratch, rows, MicroBatch(0, 1, count, longest))
    except torch.OutOfMemoryError:
        return None
    finally:
        discard_gradients([scratch])
    return fixed_in_tokens(few, few_seconds, count * longest, many_seconds)


def _seconds(model: PackedModel, member: TrainingMember, rows: Sequence[Row], one: MicroBatch) -> float:
    taken = []
    for _ in range(1 + REPEATS):
        synchronize(model.devices)
        start = time.perf_counter()
        run_pass(model, [member], rows, [one])
        synchronize(model.devices)
        taken.append(time.perf_counter() - start)
    return min(taken[1:])
