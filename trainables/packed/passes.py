"""Plans which micro-batches of a pack's optimizer step go through the base model together.

An adapter's gradient is a sum over its micro-batches, so their order and what shares their pass change nothing but
rounding. A pass costs a fixed part (frozen weights are dequantized, kernels are launched) and a part for each token,
padding included; rows of like length share a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MOST_FIXED_TOKENS = 2**20


@dataclass(frozen=True)
class MicroBatch:
    """One member's micro-batch: the member's place in the pack, the micro-batch's number in its step, its size."""

    member: int
    number: int
    rows: int
    longest: int  # tokens of its longest row


@dataclass(frozen=True)
class PassLimits:
    """The bound of a pass, and its cost beside that of its tokens.

    `max_tokens` counts rows times the longest row; a micro-batch that is larger by itself goes alone. `fixed_tokens` is
    the fixed cost of a pass in tokens' worth of work.
    """

    max_tokens: int
    fixed_tokens: int


@dataclass(frozen=True)
class PassCost:
    """The cost of passes where they run, in tokens' worth of work, and how long a token takes at most.

    `fixed_tokens` are for a pass, `run_tokens` for each further run in it of rows that share their products.
    """

    fixed_tokens: int
    run_tokens: int
    seconds_per_token: float


def plan_passes(micro_batches: Sequence[MicroBatch], limits: PassLimits) -> list[tuple[MicroBatch, ...]]:
    """Returns the cheapest split into passes of like length, the longest rows first.

    The longest come first so that a lack of memory shows at once; within a pass micro-batches are in the pack's order.
    A pass costs `fixed_tokens` plus rows times longest row; the split is optimal among those into runs of the order by
    length (dynamic programming over where runs begin).
    """
    order = sorted(micro_batches, key=lambda batch: (-batch.longest, batch.member, batch.number))
    best = [0.0] + [float("inf")] * len(order)  # cheapest way to the first n micro-batches
    begin = [0] * (len(order) + 1)
    for first in range(len(order)):
        rows = 0
        for end in range(first + 1, len(order) + 1):
            rows += order[end - 1].rows
            tokens = rows * order[first].longest
            if tokens > limits.max_tokens and end > first + 1:
                break
            cost = best[first] + limits.fixed_tokens + tokens
            if cost < best[end]:
                best[end], begin[end] = cost, first
    return _runs(order, begin)


def _runs(order: Sequence[MicroBatch], begin: Sequence[int]) -> list[tuple[MicroBatch, ...]]:
    passes: list[tuple[MicroBatch, ...]] = []
    end = len(order)
    while end:
        run = sorted(order[begin[end] : end], key=lambda batch: (batch.member, batch.number))
        passes.append(tuple(run))
        end = begin[end]
    return passes[::-1]


def tokens_that_fit(free_bytes: float, bytes_per_token: float, highest: int) -> int:
    """Counts the tokens that a pass may have in the memory that is free; at least one, at most `highest`."""
    return max(1, min(highest, int(free_bytes / bytes_per_token)))


def pass_cost(
    few: tuple[int, float], half: tuple[int, float], many: tuple[int, float], apart_seconds: float
) -> PassCost:
    """Computes a pass' cost from (tokens, seconds) of a small one and two large ones, one of half the other's tokens.

    A pass takes what is longer, the host's launches or the card's work, so the rate is that of the large passes alone.
    Where the larger is no slower, launches decide and tokens are free: `MOST_FIXED_TOKENS`, with which a step is one
    pass as far as memory allows. `apart_seconds` takes the largest pass in two runs instead of one.
    """
    rate = max(0.0, (many[1] - half[1]) / (many[0] - half[0]))
    fixed = _in_tokens(few[1], rate) - few[0]
    return PassCost(max(0, fixed), _in_tokens(max(0.0, apart_seconds - many[1]), rate), max(rate, many[1] / many[0]))


def _in_tokens(seconds: float, rate: float) -> int:
    """Converts seconds to tokens at `rate` seconds each, at most `MOST_FIXED_TOKENS`."""
    if seconds == 0:
        return 0
    return round(seconds / rate) if rate * MOST_FIXED_TOKENS > seconds else MOST_FIXED_TOKENS
