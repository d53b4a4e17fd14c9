"""Plans which rows each optimizer step trains on: shuffled anew every epoch, the same for the same seed."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import islice

from trainables.settings import TrainingSettings

Step = tuple[tuple[int, ...], ...]  # micro-batches of row indices
Plan = tuple[Step, ...]  # a whole training's optimizer steps


def steps_per_epoch(n_rows: int, micro_batch_size: int, accumulation: int) -> int:
    """Counts the optimizer steps that see every row once; the last may have fewer rows."""
    return math.ceil(n_rows / (micro_batch_size * accumulation))


def batches(n_rows: int, micro_batch_size: int, accumulation: int, seed: int, epoch: int) -> Plan:
    """Returns one epoch's steps: up to `accumulation` micro-batches of up to `micro_batch_size` row indices each."""
    order = list(range(n_rows))
    random.Random(f"{seed}:{epoch}").shuffle(order)
    rows_per_step = micro_batch_size * accumulation
    steps = (order[start : start + rows_per_step] for start in range(0, n_rows, rows_per_step))
    return tuple(
        tuple(tuple(step[at : at + micro_batch_size]) for at in range(0, len(step), micro_batch_size)) for step in steps
    )


def planned_steps(n_rows: int, training: TrainingSettings) -> int:
    """Counts the optimizer steps of a whole training: the epochs', rounded up, at least one, at most `max_steps`."""
    per_epoch = steps_per_epoch(n_rows, training.micro_batch_size, training.gradient_accumulation_steps)
    # Rounded first, so that 0.1 + 0.2 epochs of ten steps are three steps and not four.
    steps = max(1, math.ceil(round(training.epochs * per_epoch, 6)))
    return steps if training.max_steps is None else min(steps, training.max_steps)


def batch_plan(n_rows: int, training: TrainingSettings, seed: int) -> Plan:
    """Returns the whole training's steps, for a trial's seed; a fractional epoch ends at a whole step."""
    micro, accumulation = training.micro_batch_size, training.gradient_accumulation_steps
    steps = planned_steps(n_rows, training)
    epochs = math.ceil(steps / steps_per_epoch(n_rows, micro, accumulation))
    every = (step for epoch in range(epochs) for step in batches(n_rows, micro, accumulation, seed, epoch))
    return tuple(islice(every, steps))


def of_like_length(plan: Sequence[Step], lengths: Sequence[int]) -> Plan:
    """Returns the plan with each step's rows parted into micro-batches of like length, the longest first.

    A step's gradient is a sum over its rows, so how they are parted changes its padding and nothing else. `lengths` are
    the rows' tokens. Steps keep their rows, micro-batches their sizes.
    """
    return tuple(_by_length(step, lengths) for step in plan)


def _by_length(step: Step, lengths: Sequence[int]) -> Step:
    if all(len(micro_batch) == 1 for micro_batch in step):
        return step
    order = iter(sorted((row for micro_batch in step for row in micro_batch), key=lambda row: (-lengths[row], row)))
    return tuple(tuple(islice(order, len(micro_batch))) for micro_batch in step)
