"""Reserves room for the fragments of the CUDA allocator: what it must hold beside what is allocated.

Measured on an H200 with torch 2.11 and expandable segments, as hosts set them: Llama-3-8B's shapes in NF4, 25
configurations on rows of mixed length, each under ever higher caps until it ran; see
`tests/benchmarks/results/memory_probe_h200.json`. What lay unused when one ran out was at most 5.3 % of what is
allocated beside frozen weights with checkpointing, and 9.1 % without, where tensors that all layers keep leave holes
that no other tensor fits. Frozen weights lie closely. Without expandable segments it was up to 30 %.
"""

from __future__ import annotations

from trainables.memory.setting import MemoryConstants, MemorySetting

CHECKPOINTED_SHARE, KEPT_SHARE = (
    0.06,
    0.10,
)  # of what is allocated beside frozen weights, with and without checkpointing
LEAST_BYTES = 128 * 2**20  # of a few pages of 20 MiB in which something is left


def slack_bytes(setting: MemorySetting, own_bytes: float, constants: MemoryConstants) -> int:
    """Returns the bytes to keep free for fragments where `own_bytes` are allocated beside frozen weights.

    None on a CPU, whose allocator returns what is free.
    """
    if setting.device == "cpu":
        return 0
    return round(constants.slack_factor * max(LEAST_BYTES, slack_share(setting) * own_bytes))


def slack_share(setting: MemorySetting) -> float:
    """The reserve as a share of what is allocated beside frozen weights."""
    return CHECKPOINTED_SHARE if setting.gradient_checkpointing else KEPT_SHARE


def allocated_within(setting: MemorySetting, held_bytes: float, weight_bytes: int, constants: MemoryConstants) -> int:
    """Returns the highest allocated peak, weights included, that the allocator serves within `held_bytes`."""
    if setting.device == "cpu":
        return int(held_bytes)
    factor = constants.slack_factor
    share = factor * slack_share(setting)
    by_share = weight_bytes + (held_bytes - weight_bytes) / (1 + share)
    return int(min(by_share, held_bytes - factor * LEAST_BYTES))
