"""How long trials take on a device: each alone, and all of them one after another in packs. (pure)"""

from __future__ import annotations

import math
from dataclasses import replace

from study.plan.fitting import Fit, Target, Workload
from study.plan.time_model import pass_time, update_seconds
from trainables.dataset import batches as dataset_batches
from trainables.memory.setting import AdapterLoad, Pass

PASS_TOKENS = 65536  # of one pass on a card at most: trainables.engine.pass_budget.MOST_TOKENS
LOAD_SECONDS = 60.0  # of a host's start: interpreter, CUDA, base model from a warm cache
MEASURED_PASSES = 6  # of each footprint, alone: warm-up, timed, the longest
STATE_BYTES = 16  # of a trainable number: weight, gradient, AdamW's moments


def seconds_per_epoch(one: Fit, workload: Workload, target: Target) -> float | None:
    """One epoch alone, micro-batch by micro-batch of typical length; None where the card's rates are not known."""
    card, training = target.card, workload.training
    if card is None or card.tensor_flops is None:
        return None
    passes = math.ceil(workload.train_rows / training.micro_batch_size)
    typical = _typical(one.load, workload)
    seconds = passes * pass_time(workload.shape, one.setting, Pass((typical,)), card).seconds
    updates = steps_per_epoch(workload) * update_seconds(workload.shape, one.load, card)
    return target.calibration.time_factor * (seconds + updates)


def seconds_on_device(one: Fit, trials: int, together: int, workload: Workload, target: Target) -> float | None:
    """So many trials on one device, `together` at a time: load, measure, train in full passes, evaluate."""
    alone = seconds_per_epoch(one, workload, target)
    card, training = target.card, workload.training
    if alone is None or card is None:
        return None
    load, shape = _pass_load(one, together, workload), workload.shape
    tokens = load.rows * load.tokens
    trained = workload.train_tokens * total_steps(workload) / steps_per_epoch(workload)
    train = pass_time(shape, one.setting, Pass((load,)), card).seconds / tokens * trained
    forward = pass_time(shape, one.setting, Pass((load,)), card, training=False).seconds / tokens * workload.eval_tokens
    updates = total_steps(workload) * update_seconds(shape, one.load, card)
    measure = MEASURED_PASSES * alone * training.micro_batch_size / workload.train_rows
    each = train + updates + (training.evaluations + 1) * forward + measure
    return LOAD_SECONDS + target.calibration.time_factor * trials * each


def steps_per_epoch(workload: Workload) -> int:
    """Optimizer steps that see every training row once."""
    training = workload.training
    return dataset_batches.steps_per_epoch(
        workload.train_rows, training.micro_batch_size, training.gradient_accumulation_steps
    )


def total_steps(workload: Workload) -> int:
    """Optimizer steps of a whole training."""
    return dataset_batches.planned_steps(workload.train_rows, workload.training)


def _typical(load: AdapterLoad, workload: Workload) -> AdapterLoad:
    mean = max(1, round(workload.train_tokens / workload.train_rows))
    targets = max(1, round(load.rows * mean * workload.target_share))
    return replace(load, tokens=mean, targets=targets)


def step_load(one: Fit, workload: Workload) -> AdapterLoad:
    """All rows of an adapter's optimizer step: its micro-batches share passes too."""
    typical = _typical(one.load, workload)
    times = workload.training.gradient_accumulation_steps
    return replace(typical, rows=times * typical.rows, targets=times * typical.targets)


def _pass_load(one: Fit, together: int, workload: Workload) -> AdapterLoad:
    """The rows of a full pass: a step's rows of all adapters together, as many as memory and `PASS_TOKENS` let in."""
    step = step_load(one, workload)
    state = STATE_BYTES * workload.shape.adapter_parameters(one.load.rank, one.load.target_modules)
    bytes_per_token = max(1.0, (one.adapter_bytes - state) / (one.load.rows * one.load.tokens))
    in_memory = (one.room_bytes - together * state) / bytes_per_token if one.cards == 1 else one.load.rows * step.tokens
    most = max(one.load.rows * step.tokens, min(PASS_TOKENS, int(in_memory)))
    rows = max(one.load.rows, min(together * step.rows, most // step.tokens))
    return replace(step, rows=rows, targets=max(1, round(rows * step.tokens * workload.target_share)))
