"""Predicts seconds of training a study's adapters on a card, from those of its passes and updates.

A card's calibration multiplies the outcome.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from search_spaces.footprint import Footprint
from study.hardware.gpu_catalogue import GpuCard
from study.hardware.targets import Target
from study.plan.fitting import Fit
from study.plan.offloading.needs import epoch_seconds, typical
from study.plan.roofline import PassTime, pass_time, update_seconds
from study.plan.shares import Phase
from study.plan.workload import Workload
from trainables.dataset import batches
from trainables.limits import MEASURED_PASSES, MOST_PASS_TOKENS
from trainables.memory.setting import AdapterLoad, Pass

LOAD_SECONDS = 60.0  # of a host's start: interpreter, CUDA, base model from a warm cache


def seconds_per_epoch(one: Fit, workload: Workload, target: Target) -> float | None:
    """One epoch alone, micro-batch by micro-batch of typical length; None where the card's rates are not known."""
    return epoch_seconds(one.setting, one.load, workload, target)


def rounds_and_seconds(
    phase: Phase, own: Sequence[Fit], devices: int, workload: Workload, target: Target
) -> tuple[list[tuple[int, ...]], float | None]:
    """The packs' sizes round by round of a phase on so many devices, and its seconds where the card's rates are known.

    `own` are its trials, or, of a search, some that were drawn.
    """
    trials = [own[number % len(own)] for number in range(phase.trials)]  # of a search as many as were drawn
    rounds = phase.rounds([one.adapter_bytes for one in trials], devices)
    seconds = seconds_of_rounds(
        slowest(own),
        [max(packs) for packs in rounds],
        len({Footprint.of(one.config) for one in own}),
        mean_state_bytes(own),
        workload,
        target,
    )
    return rounds, seconds


def seconds_of_rounds(
    one: Fit, rounds: Sequence[int], footprints: int, state_bytes: float, workload: Workload, target: Target
) -> float | None:
    """Packs of so many such adapters one after the other on one device: load, measure, train, evaluate.

    `state_bytes` are an adapter's on average, `footprints` are measured, each once. None where the card's rates are not
    known.
    """
    alone = seconds_per_epoch(one, workload, target)
    if alone is None:
        return None
    measure = MEASURED_PASSES * alone * workload.training.micro_batch_size / workload.train_rows
    steps, evaluations = total_steps(workload), workload.training.evaluations + 1
    seconds = sum(
        steps * step_seconds(one, pack, pack * state_bytes, workload, target)
        + evaluations * evaluation_seconds(one, pack, pack * state_bytes, workload, target)
        for pack in rounds
    )
    return LOAD_SECONDS + footprints * measure + seconds


def step_seconds(one: Fit, pack: int, state_bytes: float, workload: Workload, target: Target) -> float:
    """One optimizer step of a pack of such adapters, whose states take so many bytes together, on a card."""
    card = _known_card(target)
    passes, load = _passes(one, pack, state_bytes, workload)
    seconds = passes * pass_time(workload.shape, one.setting, Pass((load,)), card).seconds
    return target.calibration.time_factor * (
        seconds + pack * update_seconds(workload.shape, one.load, card, one.setting)
    )


def full_pass(own: Sequence[Fit], pack: int, workload: Workload, target: Target) -> PassTime:
    """The time of one pass of a pack of the slowest of these, on a card."""
    one, state_bytes = slowest(own), pack * mean_state_bytes(own)
    return pass_time(
        workload.shape, one.setting, Pass((_passes(one, pack, state_bytes, workload)[1],)), _known_card(target)
    )


def slowest(own: Sequence[Fit]) -> Fit:
    """The one whose steps take longest."""
    return max(own, key=lambda one: (len(one.load.target_modules), one.load.rank))


def mean_state_bytes(own: Sequence[Fit]) -> float:
    """What an adapter's state takes on average."""
    return sum(one.state_bytes for one in own) / len(own)


def _passes(one: Fit, pack: int, state_bytes: float, workload: Workload) -> tuple[int, AdapterLoad]:
    """How many passes an optimizer step of such a pack takes, and the rows of each."""
    step = step_load(one, workload)
    rows = pack * step.rows
    passes = math.ceil(rows / rows_of_pass(one, state_bytes, workload))
    return passes, _rows_of(step, rows / passes, workload)


def evaluation_seconds(one: Fit, pack: int, state_bytes: float, workload: Workload, target: Target) -> float:
    """The evaluation split once for each adapter of a pack, in full passes, on a card."""
    rows = rows_of_pass(one, state_bytes, workload)
    load = _rows_of(step_load(one, workload), rows, workload)
    full = pass_time(workload.shape, one.setting, Pass((load,)), _known_card(target), training=False).seconds
    return target.calibration.time_factor * pack * full / (load.rows * load.tokens) * workload.eval_tokens


def rows_of_pass(one: Fit, state_bytes: float, workload: Workload) -> int:
    """How many rows of typical length a pass has: as many as memory beside the states and a pass' bound let in, and at
    least a micro-batch."""
    tokens = typical(one.load, workload).tokens
    most = float(MOST_PASS_TOKENS["cuda"])
    if one.cards == 1:
        bytes_per_token = (one.adapter_bytes - one.state_bytes) / (one.load.rows * one.load.tokens)
        most = min(most, (one.room_bytes - state_bytes) / max(1.0, bytes_per_token))
    return max(one.load.rows, int(most // tokens))


def total_steps(workload: Workload) -> int:
    """Optimizer steps of a whole training."""
    return batches.planned_steps(workload.train_rows, workload.training)


def step_load(one: Fit, workload: Workload) -> AdapterLoad:
    """All rows of an adapter's optimizer step: its micro-batches share passes too."""
    rows = typical(one.load, workload)
    times = workload.training.gradient_accumulation_steps
    return replace(rows, rows=times * rows.rows, targets=times * rows.targets)


def _rows_of(step: AdapterLoad, rows: float, workload: Workload) -> AdapterLoad:
    """So many rows of a step's length."""
    whole = math.ceil(rows)
    return replace(step, rows=whole, targets=max(1, round(whole * step.tokens * workload.target_share)))


def _known_card(target: Target) -> GpuCard:
    assert target.card is not None  # `seconds_per_epoch` is not None
    return target.card
