"""Predicts the seconds of one pass and of one update on a card: a roofline, or its launches or bus where slower.

A pass' products, dequantization and elementwise work add up to the time that the card is busy. Meanwhile the host
launches kernels, and what waits in host memory comes over the bus: the slowest of the three decides. A few constants
are measured or assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from study.hardware.gpu_catalogue import GpuCard
from trainables.base_model.shape import ModelShape
from trainables.limits import NF4_VALUE_BYTES
from trainables.memory.frozen_linears import block_bytes, streamed_among
from trainables.memory.offload import STREAM_BUFFERS
from trainables.memory.optimizer_states import moment_bytes
from trainables.memory.setting import AdapterLoad, MemorySetting, Pass

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
    transfer: float = 0.0  # of what waits in host memory, over the bus

    @property
    def busy(self) -> float:
        """How long the card computes."""
        return self.products + self.dequantization + self.elementwise

    @property
    def seconds(self) -> float:
        """How long the pass takes."""
        return max(self.busy, self.launches, self.transfer)


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
        transfer=_transfer_seconds(shape, setting, one, card, training),
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


def update_seconds(shape: ModelShape, load: AdapterLoad, card: GpuCard, setting: MemorySetting | None = None) -> float:
    """AdamW's time for one adapter, bound by bandwidth; moments that wait in host memory come and go over the bus.

    What of it is hidden behind other adapters' updates is not taken off. `setting` None: nothing waits.
    """
    assert card.bandwidth_bytes_per_second is not None
    numbers = load.parameters(shape)
    seconds = UPDATE_BYTES * numbers / (card.bandwidth_bytes_per_second * card.bandwidth_efficiency)
    if setting is None or not setting.offload.optimizer_state:
        return seconds
    layers = shape.layers if load.layers is None else load.layers
    return seconds + 2 * moment_bytes(shape, setting, load, layers) / _bus(card)


def bus_bytes(shape: ModelShape, setting: MemorySetting, one: Pass, training: bool = True) -> float:
    """The bytes that come over the bus to the card in one pass; generation has one transfer of the layers a token.

    A streamed layer comes once for the forward pass and once for the backward one, which computes it again meanwhile;
    those that are still there at the turn come once. Layers' inputs come back once, and leave while the forward pass
    goes on, on the bus' other way. Of an embedding come the rows of the pass' tokens.
    """
    away = setting.offload
    values = one.tokens * shape.hidden_size
    inputs = max(0, shape.layers - STREAM_BUFFERS) * values if away.layer_inputs and training else 0
    rows = values * setting.weight_bytes if away.embedding else 0
    return _block_bytes(shape, setting, training) + inputs * setting.compute_bytes + rows


@lru_cache(maxsize=256)
def _block_bytes(shape: ModelShape, setting: MemorySetting, training: bool) -> int:
    streamed = streamed_among(shape, setting, range(shape.layers)) if setting.offload.layers else ()
    coming = (*streamed, *streamed[:-STREAM_BUFFERS]) if training else streamed
    return sum(block_bytes(shape, setting, layer) for layer in coming)


def _transfer_seconds(shape: ModelShape, setting: MemorySetting, one: Pass, card: GpuCard, training: bool) -> float:
    moved = bus_bytes(shape, setting, one, training)
    return moved / _bus(card) if moved else 0.0


def _bus(card: GpuCard) -> float:
    if card.bus_bytes_per_second is None:
        raise ValueError(f"the bus of {card.name} must be known to predict times; the catalogue does not have it")
    return card.bus_bytes_per_second


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
