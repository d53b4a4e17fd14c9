"""Counts the bytes of adapters' optimizer states: of AdamW in fp32, or in 8 bits as bitsandbytes keeps them."""

from __future__ import annotations

from collections.abc import Sequence

from trainables.base_model.shape import ModelShape
from trainables.limits import FEWEST_8BIT_NUMBERS, FP32_BYTES, MOMENT_BLOCK
from trainables.memory.offload import STAGED_STATE_BYTES
from trainables.memory.setting import AdapterLoad, MemorySetting

MOMENTS = 2
QUANTILE_MAPS_BYTES = MOMENTS * 256 * FP32_BYTES  # of 256 values each, which say what a moment's byte means
STAGING_BUFFERS = 2  # on a card, where moments wait in host memory: for those at work, and those on their way


def moment_bytes(shape: ModelShape, setting: MemorySetting, load: AdapterLoad, layers: int) -> int:
    """Returns the bytes of one adapter's moments in so many layers that carry it."""
    if setting.optimizer == "adamw":
        numbers = shape.adapter_parameters(load.rank, load.target_modules) // shape.layers * layers
        return _fp32(numbers)
    sizes = [load.rank * width for name in load.target_modules for width in shape.linears[name]]
    maps = QUANTILE_MAPS_BYTES if layers and max(sizes, default=0) >= FEWEST_8BIT_NUMBERS else 0
    return layers * sum(map(_eight_bit, sizes)) + maps


def staging_bytes(shape: ModelShape, setting: MemorySetting, loads: Sequence[AdapterLoad]) -> int:
    """Returns the bytes of a card's buffers for moments that wait in host memory, which are there from start to end.

    Moments come part by part, so that a buffer's size is fixed, unless one parameter's moments need more.
    """
    if not setting.offload.optimizer_state:
        return 0
    return STAGING_BUFFERS * max([STAGED_STATE_BYTES, *(_largest(shape, setting, load) for load in loads)])


def _largest(shape: ModelShape, setting: MemorySetting, load: AdapterLoad) -> int:
    """Returns the bytes of the moments of an adapter's largest parameter."""
    sizes = (load.rank * width for name in load.target_modules for width in shape.linears[name])
    of_one = _eight_bit if setting.optimizer == "adamw_8bit" else _fp32
    return max(map(of_one, sizes), default=0)


def _fp32(numbers: int) -> int:
    return MOMENTS * FP32_BYTES * numbers


def _eight_bit(numbers: int) -> int:
    """Returns the bytes of so many numbers' moments: a byte each, and an fp32 absmax for each block of them."""
    if numbers < FEWEST_8BIT_NUMBERS:
        return _fp32(numbers)
    return MOMENTS * (numbers + FP32_BYTES * -(-numbers // MOMENT_BLOCK))
