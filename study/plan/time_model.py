"""Predicted time of training on a card, from its rates: a roofline, and what the card's host needs for launches. (pure)

A pass' products, dequantization and elementwise work add up to the time that the card is busy; the host launches
kernels meanwhile, and where it is slower, it decides. A few constants are measured or assumed; a card's calibration
multiplies the outcome.
"""

from __future__ import annotations

from dataclasses import dataclass

from study.hardware.gpu_catalogue import GpuCard
from trainables.base_model.shape import ModelShape
from trainables.memory.setting import AdapterLoad, MemorySetting, Pass

NF4_READ_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # of a value, double quantization's scales included
LOW_RANK_EFFICIENCY = 0.2  # of the frozen products': thin matrices
AUTOGRAD_TRAFFIC = 5.0  # elementwise bytes of transformers' own layers over the fused decoder's
UPDATE_BYTES = 28  # of a trainable number: AdamW reads weight, gradient and moments, writes weight and moments
LAUNCH_SECONDS = 10e-6
LAUNCHES_OF_LAYER, LAUNCHES_OF_TARGET = 40, 8  # in one direction


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

    The fused decoder does not compute down_proj again: its output is not needed.
    """
    if not setting.gradient_checkpointing:
        return 2.0
    if not shape.is_plain_llama:
        return 3.0
    return 3.0 - shape.intermediate_size * shape.hidden_size / shape.layer_linear_parameters


def update_seconds(shape: ModelShape, load: AdapterLoad, card: GpuCard) -> float:
    """AdamW's time for one adapter, bound by bandwidth."""
    assert card.bandwidth_bytes_per_second is not None
    numbers = shape.adapter_parameters(load.rank, load.target_modules)
    return UPDATE_BYTES * numbers / (card.bandwidth_bytes_per_second * card.bandwidth_efficiency)


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
    flops = sum(
        2.0 * load.rows * one.width * shape.adapter_parameters(load.rank, load.target_modules) for load in one.loads
    )
    return uses * flops / LOW_RANK_EFFICIENCY


def _dequantization_bytes(shape: ModelShape, setting: MemorySetting) -> float:
    """Every NF4 weight read, and written in the compute type."""
    if setting.precision != "nf4":
        return 0.0
    return shape.layers * shape.layer_linear_parameters * (NF4_READ_BYTES + setting.compute_bytes)


def _elementwise_bytes(
    shape: ModelShape, setting: MemorySetting, one: Pass, directions: float, training: bool
) -> float:
    """Reads and writes outside of products: norms, residuals, rotation, attention, SwiGLU.

    Forward: two norms and two copies of the residual (8 d), rotation and attention (8 a + 2 k), SwiGLU (3 f). Backward:
    norms 8 d, attention and rotation 14 a, SwiGLU 5 f. The same for each target's update: its output once more, read
    and written (2 out).
    """
    d, a, k, f = shape.hidden_size, shape.query_size, shape.key_size, shape.intermediate_size
    forward = 8 * d + 8 * a + 2 * k + 3 * f
    backward = 8 * d + 14 * a + 5 * f
    values = (directions - 1) * forward + backward if training else forward
    outputs = {name: outward for name, (_, outward) in shape.linears.items()}
    updates = sum(2 * load.rows * one.width * outputs[name] for load in one.loads for name in load.target_modules)
    total = shape.layers * (one.tokens * values + directions * updates) * setting.compute_bytes
    return total if shape.is_plain_llama else AUTOGRAD_TRAFFIC * total
