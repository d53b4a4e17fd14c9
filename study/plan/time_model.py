"""Predicts seconds of training on a card: a roofline, or its launches where they are slower.

A pass' products, dequantization and elementwise work add up to the time that the card is busy; the host launches
kernels meanwhile, and where it is slower, it decides. A few constants are measured or assumed; a card's calibration
multiplies the outcome.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from study.hardware.gpu_catalogue import GpuCard
from study.hardware.targets import Target
from study.plan.fitting import Fit
from study.plan.workload import Workload
from trainables.base_model.shape import ModelShape
from trainables.dataset import batches
from trainables.limits import MEASURED_PASSES, MOST_PASS_TOKENS, NF4_VALUE_BYTES
from trainables.memory.setting import AdapterLoad, MemorySetting, Pass

LOAD_SECONDS = 60.0  # of a host's start: interpreter, CUDA, base model from a warm cache
LOW_RANK_EFFICIENCY = 0.2  # of the frozen products': thin matrices
AUTOGRAD_TRAFFIC = 5.0  # elementwise bytes of transformers' own layers over the fused decoder's
UPDATE_BYTES = 28  # of a trainable number: AdamW reads weight, gradient and moments, writes weight and moments
LAUNCH_SECONDS = 40e-6  # with Python's part of it: packs of 1 to 8 adapters took 166 to 253 ms (q_v) and 299 to 441 ms
LAUNCHES_OF_LAYER, LAUNCHES_OF_TARGET = 40, 8  # in one direction; tests/benchmarks/results/packed_step_h100.json


@dataclass(frozen=True)
class PassTime:
    """Seconds of one pass, forward and backward."""

    products: float
    dequantization: float
    elementwise: float
    launches: float

    @property
    def busy(self) -> float:
        """How long the card computes."""
        return self.products + self.dequantization + self.elementwise

    @property
    def seconds(self) -> float:
        """How long the pass takes."""
        return max(self.busy, self.launches)


def pass_time(shape: ModelShape, setting: MemorySetting, one: Pass, card: GpuCard, training: bool = True) -> PassTime:
    """The time of one pass (without `training`: forward alone). Raises ValueError for a card without known rates."""
    if card.tensor_flops is None or card.bandwidth_bytes_per_second is None:
        raise ValueError(f"the rates of {card.name} must be known to predict times; the catalogue does not have them")
    directions = directions_of(shape, setting) if training else 1.0
    flops = card.tensor_flops * card.product_efficiency
    bandwidth = card.bandwidth_bytes_per_second * card.bandwidth_efficiency
    targets = max((len(load.target_modules) for load in one.loads), default=0)
    return PassTime(
        products=_product_flops(shape, one, directions) / flops + _low_rank_flops(shape, one, training) / flops,
        dequantization=directions * _dequantization_bytes(shape, setting) / bandwidth,
        elementwise=_elementwise_bytes(shape, setting, one, directions, training) / bandwidth,
        launches=directions * shape.layers * (LAUNCHES_OF_LAYER + LAUNCHES_OF_TARGET * targets) * LAUNCH_SECONDS,
    )


def directions_of(shape: ModelShape, setting: MemorySetting) -> float:
    """How often the frozen products are computed: forward, backward, and with checkpointing forward again.

    The fused decoder does not compute down_proj again, unless a norm follows: else its output is not needed.
    """
    if not setting.gradient_checkpointing:
        return 2.0
    if not shape.is_fused or shape.family.norms.after_mlp:
        return 3.0
    return 3.0 - shape.intermediate_size * shape.hidden_size / shape.layer_linear_parameters


def update_seconds(shape: ModelShape, load: AdapterLoad, card: GpuCard) -> float:
    """AdamW's time for one adapter, bound by bandwidth."""
    assert card.bandwidth_bytes_per_second is not None
    return UPDATE_BYTES * load.parameters(shape) / (card.bandwidth_bytes_per_second * card.bandwidth_efficiency)


def adapters_that_pay(
    shape: ModelShape, setting: MemorySetting, load: AdapterLoad, card: GpuCard, most_tokens: int, gain: float = 0.02
) -> int:
    """The pack beyond which twice as many adapters save less than `gain` of the time of an adapter's tokens.

    `most_tokens` bounds a pass: beyond it a larger pack saves nothing.
    """

    def seconds_per_adapter(adapters: int) -> float:
        return pass_time(shape, setting, Pass((load,) * adapters), card).seconds / adapters

    adapters = 1
    while 2 * adapters * load.rows * load.tokens <= most_tokens and seconds_per_adapter(2 * adapters) < (
        1 - gain
    ) * seconds_per_adapter(adapters):
        adapters *= 2
    return adapters


def _product_flops(shape: ModelShape, one: Pass, directions: float) -> float:
    """Frozen linears and attention (causal: half of all scores) in every direction, the head on targets in two."""
    linears = 2.0 * one.tokens * shape.layers * shape.layer_linear_parameters
    attention = 2.0 * one.tokens * one.width * shape.layers * shape.query_size
    head = 2.0 * one.targets * shape.embedding_parameters * min(2.0, directions)
    return directions * (linears + attention) + head


def _low_rank_flops(shape: ModelShape, one: Pass, training: bool) -> float:
    """x A^T and its product with B: forward twice, backward for inputs and for weights; at a lower efficiency."""
    uses = 4.0 if training else 1.0
    flops = sum(2.0 * load.rows * one.width * load.parameters(shape) for load in one.loads)
    return uses * flops / LOW_RANK_EFFICIENCY


def _dequantization_bytes(shape: ModelShape, setting: MemorySetting) -> float:
    """Every NF4 weight read, and written in the compute type."""
    if setting.precision != "nf4":
        return 0.0
    return shape.layers * shape.layer_linear_parameters * (NF4_VALUE_BYTES + setting.compute_bytes)


def _elementwise_bytes(
    shape: ModelShape, setting: MemorySetting, one: Pass, directions: float, training: bool
) -> float:
    """Reads and writes outside of products: norms, residuals, rotation, attention, SwiGLU.

    Forward: each norm (2 d), two copies of the residual (4 d), rotation and attention (8 a + 2 k), SwiGLU (3 f).
    Backward: each norm 4 d, attention and rotation 14 a, SwiGLU 5 f. Norms of queries and keys as others. The same for
    each target's update: its output once more, read and written (2 out).
    """
    d, a, k, f = shape.hidden_size, shape.query_size, shape.key_size, shape.intermediate_size
    normalized = len(shape.family.norms.names) * d if shape.counted is None else 2 * d  # two norms are usual
    normalized += a + k if shape.has_head_norms else 0
    forward = 2 * normalized + 4 * d + 8 * a + 2 * k + 3 * f
    backward = 4 * normalized + 14 * a + 5 * f
    values = (directions - 1) * forward + backward if training else forward
    outputs = {name: outward for name, (_, outward) in shape.linears.items()}
    updates = sum(2 * load.rows * one.width * outputs[name] for load in one.loads for name in load.target_modules)
    total = shape.layers * (one.tokens * values + directions * updates) * setting.compute_bytes
    return total if shape.is_fused else AUTOGRAD_TRAFFIC * total


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
    step = step_load(one, workload)
    rows = pack * step.rows
    passes = math.ceil(rows / rows_of_pass(one, state_bytes, workload))
    load = _rows_of(step, rows / passes, workload)
    seconds = passes * pass_time(workload.shape, one.setting, Pass((load,)), card).seconds
    return target.calibration.time_factor * (seconds + pack * update_seconds(workload.shape, one.load, card))


def evaluation_seconds(one: Fit, pack: int, state_bytes: float, workload: Workload, target: Target) -> float:
    """The evaluation split once for each adapter of a pack, in full passes, on a card."""
    rows = rows_of_pass(one, state_bytes, workload)
    load = _rows_of(step_load(one, workload), rows, workload)
    full = pass_time(workload.shape, one.setting, Pass((load,)), _known_card(target), training=False).seconds
    return target.calibration.time_factor * pack * full / (load.rows * load.tokens) * workload.eval_tokens


def rows_of_pass(one: Fit, state_bytes: float, workload: Workload) -> int:
    """How many rows of typical length a pass has: as many as memory beside the states and a pass' bound let in, and at
    least a micro-batch."""
    tokens = _typical(one.load, workload).tokens
    most = float(MOST_PASS_TOKENS["cuda"])
    if one.cards == 1:
        bytes_per_token = (one.adapter_bytes - one.state_bytes) / (one.load.rows * one.load.tokens)
        most = min(most, (one.room_bytes - state_bytes) / max(1.0, bytes_per_token))
    return max(one.load.rows, int(most // tokens))


def steps_per_epoch(workload: Workload) -> int:
    """Optimizer steps that see every training row once."""
    training = workload.training
    return batches.steps_per_epoch(workload.train_rows, training.micro_batch_size, training.gradient_accumulation_steps)


def total_steps(workload: Workload) -> int:
    """Optimizer steps of a whole training."""
    return batches.planned_steps(workload.train_rows, workload.training)


def _typical(load: AdapterLoad, workload: Workload) -> AdapterLoad:
    mean = max(1, round(workload.train_tokens / workload.train_rows))
    targets = max(1, round(load.rows * mean * workload.target_share))
    return replace(load, tokens=mean, targets=targets)


def step_load(one: Fit, workload: Workload) -> AdapterLoad:
    """All rows of an adapter's optimizer step: its micro-batches share passes too."""
    typical = _typical(one.load, workload)
    times = workload.training.gradient_accumulation_steps
    return replace(typical, rows=times * typical.rows, targets=times * typical.targets)


def _rows_of(step: AdapterLoad, rows: float, workload: Workload) -> AdapterLoad:
    """So many rows of a step's length."""
    whole = math.ceil(rows)
    return replace(step, rows=whole, targets=max(1, round(whole * step.tokens * workload.target_share)))


def _known_card(target: Target) -> GpuCard:
    assert target.card is not None  # `seconds_per_epoch` is not None
    return target.card
