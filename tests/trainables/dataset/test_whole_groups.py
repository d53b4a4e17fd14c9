"""Filling splits with groups, against an oracle that tries every choice. All comparisons are exact."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.dataset.whole_groups import fewest_left_out, most_of_one_group, reachable, whole_size

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def _oracle(sizes: Sequence[int], rows: int, most: int) -> int | None:
    """The fewest rows that any choice of rows by group leaves out; None where no choice makes `rows`."""
    found = [
        sum(size - taken for size, taken in zip(sizes, choice, strict=True) if taken)
        for choice in itertools.product(*(range(min(size, most) + 1) for size in sizes))
        if sum(choice) == rows
    ]
    return min(found, default=None)


@given(SIZES, st.integers(0, 14), st.integers(0, 3))
def test_as_few_rows_are_left_out_as_any_choice_can(sizes: list[int], rows: int, more: int) -> None:
    most = most_of_one_group(rows) + more
    filling = fewest_left_out(Counter(sizes), rows, most)
    assert (None if filling is None else filling.left_out) == _oracle(sizes, rows, most)
    if filling is None:
        return
    taken = [*Counter(filling.whole).elements()]
    assert sum(taken) + sum(part for _, part in filling.parts) == rows
    assert max([*taken, *(part for _, part in filling.parts)], default=0) <= most
    assert not Counter([*taken, *(size for size, _ in filling.parts)]) - Counter(sizes)


@given(SIZES, st.integers(1, 12))
def test_the_size_of_whole_groups_is_the_least_that_any_choice_makes(sizes: list[int], at_least: int) -> None:
    sums = [
        (sum(chosen), max(chosen))
        for number in range(1, len(sizes) + 1)
        for chosen in itertools.combinations(sizes, number)
    ]
    fitting = [total for total, most in sums if at_least <= total <= 2 * at_least and most <= most_of_one_group(total)]
    assert whole_size(Counter(sizes), at_least) == min(fitting, default=None)


@given(SIZES, st.integers(0, 40))
def test_reachable_sums(sizes: list[int], most: int) -> None:
    sums = {sum(chosen) for number in range(len(sizes) + 1) for chosen in itertools.combinations(sizes, number)}
    assert reachable(Counter(sizes), most) == sum(1 << total for total in sums if total <= most)


@pytest.mark.parametrize("step", [2, 7])
def test_hundreds_of_sizes_take_seconds_at_most(step: int) -> None:
    sizes = Counter({step * size: 3 for size in range(1, 300)})  # about a million rows, none in a group alone
    start = time.process_time()
    filling = fewest_left_out(sizes, 50_003, 25_002)
    assert filling is not None
    assert filling.left_out == -50_003 % step
    assert time.process_time() - start < 10
