"""Passes: against every possible split, and the padding on lengths as real ones are."""

from __future__ import annotations

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.packed.passes import (
    MOST_FIXED_TOKENS,
    MicroBatch,
    PassLimits,
    pass_cost,
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
    assert 1 - sum(lengths) / cost(passes, PassLimits(4096, fixed_tokens=0)) < 0.05


@given(st.floats(1e-3, 1.0), st.floats(1e-6, 1e-3), st.integers(1, 500), st.integers(2000, 4000))
def test_where_the_card_decides_a_small_pass_counts_in_tokens_of_the_large_ones(fixed, rate, few, half):
    """To a token: it is rounded to whole ones; a cost beyond the most counts as that."""
    sizes = (few, half, 2 * half)
    found = pass_cost(*((tokens, fixed + rate * tokens) for tokens in sizes), fixed + rate * 2 * half)
    expected = min(MOST_FIXED_TOKENS - few, fixed / rate)
    assert abs(found.fixed_tokens - expected) <= 1 + 1e-6 * expected
    assert found.seconds_per_token >= rate


def test_the_rate_is_not_taken_from_a_pass_that_waits_for_launches():
    """Launches take 0.11 s, a token 1e-5 s: up to 11,000 tokens a pass takes 0.11 s, and 22,000 take 0.22 s."""
    found = pass_cost((100, 0.11), (11000, 0.11), (22000, 0.22), 0.22)
    assert found.fixed_tokens == 11000 - 100


def test_where_more_tokens_take_no_longer_a_step_is_one_pass():
    found = pass_cost((40, 0.11), (4000, 0.11), (8000, 0.10), 0.10)
    assert found.fixed_tokens > MOST_FIXED_TOKENS / 2
    some = [MicroBatch(k, 0, 4, longest) for k, longest in enumerate((90, 250, 30, 128))]
    assert len(plan_passes(some, PassLimits(65536, found.fixed_tokens))) == 1
    assert len(plan_passes(some, PassLimits(65536, 0))) == 4


@given(st.floats(1e-6, 1e-3), st.floats(0.0, 1.0))
def test_a_run_counts_in_tokens_of_the_large_passes(rate, run):
    """To a token, and to 1e-6; what is faster in two runs than in one costs nothing."""
    found = pass_cost((10, 0.1), (2000, 2000 * rate), (4000, 4000 * rate), 4000 * rate + run)
    expected = min(MOST_FIXED_TOKENS, run / rate)
    assert abs(found.run_tokens - expected) <= 1 + 1e-6 * expected
    assert pass_cost((10, 0.1), (2000, 2000 * rate), (4000, 4000 * rate), 3000 * rate).run_tokens == 0


def test_where_launches_decide_a_run_costs_the_most():
    assert pass_cost((40, 0.11), (4000, 0.11), (8000, 0.11), 0.17).run_tokens == MOST_FIXED_TOKENS
    assert pass_cost((40, 0.11), (4000, 0.11), (8000, 0.11), 0.11).run_tokens == 0
