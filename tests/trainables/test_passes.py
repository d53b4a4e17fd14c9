"""Passes: against every possible split, and the padding on real lengths."""

from __future__ import annotations

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.passes import (
    MOST_FIXED_TOKENS,
    MicroBatch,
    PassLimits,
    fixed_in_tokens,
    padding_share,
    plan_passes,
)

batches = st.lists(
    st.tuples(st.integers(1, 3), st.integers(1, 40)), min_size=1, max_size=7
).map(lambda sizes: [MicroBatch(k % 3, k, rows, longest) for k, (rows, longest) in enumerate(sizes)])  # fmt: skip
bounds = st.builds(PassLimits, max_tokens=st.integers(1, 200), fixed_tokens=st.integers(0, 60))


def cost(passes, limits):
    return sum(limits.fixed_tokens + sum(b.rows for b in one) * max(b.longest for b in one) for one in passes)


def every_split(items):
    """All partitions of the items into groups, each group once."""
    if not items:
        yield []
        return
    first, *rest = items
    for size in range(len(rest) + 1):
        for company in itertools.combinations(rest, size):
            others = [item for item in rest if item not in company]
            for split in every_split(others):
                yield [[first, *company], *split]


def allowed(one, limits):
    return len(one) == 1 or sum(b.rows for b in one) * max(b.longest for b in one) <= limits.max_tokens


@given(batches, bounds)
@settings(max_examples=150, deadline=None)
def test_every_micro_batch_goes_once_and_no_pass_exceeds_the_limit(some, limits):
    passes = plan_passes(some, limits)
    assert sorted((b.member, b.number) for one in passes for b in one) == sorted((b.member, b.number) for b in some)
    assert all(allowed(one, limits) for one in passes)
    assert all([*one] == sorted(one, key=lambda b: (b.member, b.number)) for one in passes)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6).map(
        lambda lengths: [MicroBatch(k, 0, 1, longest) for k, longest in enumerate(lengths)]
    ),
    bounds,
)
@settings(max_examples=60, deadline=None)
def test_no_split_of_equal_micro_batches_is_cheaper(some, limits):
    cheapest = min(cost(split, limits) for split in every_split(some) if all(allowed(one, limits) for one in split))
    assert cost(plan_passes(some, limits), limits) == cheapest


def test_longest_rows_come_first():
    some = [MicroBatch(k, 0, 1, longest) for k, longest in enumerate((10, 500, 20, 480))]
    first, *_ = plan_passes(some, PassLimits(1024, 50))
    assert {batch.longest for batch in first} == {500, 480}


def test_a_dear_pass_takes_all_in_one_and_a_free_one_none_together():
    some = [MicroBatch(k, 0, 1, longest) for k, longest in enumerate((10, 20, 30))]
    assert len(plan_passes(some, PassLimits(1000, 1000))) == 1
    assert len(plan_passes(some, PassLimits(1000, 0))) == 3


def test_padding_of_a_pack_on_lengths_like_pubmedqa_stays_under_five_percent():
    draw = random.Random(0)
    lengths = [min(512, max(80, round(draw.gauss(330, 95)))) for _ in range(8 * 16)]
    some = [MicroBatch(k // 16, k % 16, 1, length) for k, length in enumerate(lengths)]
    passes = plan_passes(some, PassLimits(max_tokens=4096, fixed_tokens=285))
    assert padding_share(passes, sum(lengths)) < 0.05


@given(st.floats(1e-4, 1.0), st.floats(1e-7, 1e-3), st.integers(1, 500), st.integers(501, 9000))
def test_the_fixed_cost_of_a_straight_line_is_found(fixed, rate, few, many):
    """To a token: it is rounded to whole ones; a cost beyond the most counts as that."""
    found = fixed_in_tokens(few, fixed + rate * few, many, fixed + rate * many)
    assert abs(found - min(MOST_FIXED_TOKENS, fixed / rate)) <= 1 + 1e-6 * fixed / rate


def test_where_more_tokens_take_no_longer_a_step_is_one_pass():
    fixed = fixed_in_tokens(40, 0.11, 8000, 0.10)
    assert fixed == MOST_FIXED_TOKENS
    some = [MicroBatch(k, 0, 4, longest) for k, longest in enumerate((90, 250, 30, 128))]
    assert len(plan_passes(some, PassLimits(65536, fixed))) == 1
    assert len(plan_passes(some, PassLimits(65536, 0))) == 4
