"""Reserves room for the fragments of the CUDA allocator: what it must hold beside what is allocated.

Measured on an H200 with torch 2.11 and expandable segments, as hosts set them: shapes of Llama-3-8B and Llama-3.2-1B in
NF4, 46 configurations on rows of mixed length, five of them in fp16 with a T4's attention, each under ever higher caps
until it ran (`tests/benchmarks/results/memory_probe_h200.json`). Frozen weights lie closely; what else is allocated
leaves pages in which something is left, and where all layers keep their tensors, holes between them that no other
tensor fits: without checkpointing two of those in fp16 ran out at a tenth of what is allocated beside frozen weights,
and ran at 13 %. Of 24 configurations that 6 % with checkpointing and 10 % without admitted at a T4's edge none ran out;
of 12 that were refused there, 8 would have run (`edge_study_h200.json`). Without expandable segments up to four times
as much is needed.

A single tensor's size asks for nothing more, so that long rows have no reserve of their own: where no hole is large
enough, the allocator gives back the pages of free blocks and maps others behind the last block. Passes of 16,384 to
18,432 tokens, whose tensors between gate and down projection take 448 to 504 MiB each, ran with 125 to 140 MiB beyond
what is allocated. The ranks ask for it: what ran out with most room left were adapters of rank 128 at all layers.
"""

from __future__ import annotations

from trainables.memory.setting import MemoryConstants, MemorySetting

FIXED_BYTES = {True: 192 * 2**20, False: 64 * 2**20}  # with checkpointing and without
SHARES = {True: 0.04, False: 0.12}  # of what is allocated beside frozen weights


def slack_bytes(setting: MemorySetting, own_bytes: float, constants: MemoryConstants) -> int:
    """Returns the bytes to keep free for fragments where `own_bytes` are allocated beside frozen weights.

    0 on a CPU, whose allocator returns what is free.
    """
    if setting.device == "cpu":
        return 0
    fixed, share = FIXED_BYTES[setting.gradient_checkpointing], SHARES[setting.gradient_checkpointing]
    return round(constants.slack_factor * (fixed + share * own_bytes))


def allocated_within(setting: MemorySetting, held_bytes: float, weight_bytes: int, constants: MemoryConstants) -> int:
    """Returns the highest allocated peak, weights included, that the allocator serves within `held_bytes`."""
    if setting.device == "cpu":
        return int(held_bytes)
    fixed, share = FIXED_BYTES[setting.gradient_checkpointing], SHARES[setting.gradient_checkpointing]
    left = held_bytes - weight_bytes - constants.slack_factor * fixed
    return int(weight_bytes + left / (1 + constants.slack_factor * share))
