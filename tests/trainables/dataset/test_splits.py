"""Splits: disjoint by group, nested, independent of input order and of the training size. All comparisons are exact."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.dataset.files import DatasetError
from trainables.dataset.splits import Example, draw_splits, hold_out, sample, shuffled
from trainables.settings import DatasetSettings

NONE: frozenset[str] = frozenset()


def _pool(group_sizes: list[int]) -> list[Example]:
    return [
        Example(f"prompt {group}", "", "", f"completion {member}", None, str(group), f"{group}-{member}")
        for group, size in enumerate(group_sizes)
        for member in range(size)
    ]


def _settings(**values: object) -> DatasetSettings:
    return dataclasses.replace(DatasetSettings("mine"), **values)  # type: ignore[arg-type]


def _ids(examples: list[Example]) -> list[str]:
    return [example.row_id for example in examples]


POOLS = st.lists(st.integers(1, 4), min_size=12, max_size=40).map(_pool)
SEEDS = st.integers(0, 1000)


@given(POOLS, SEEDS, st.booleans(), st.integers(0, 4), st.integers(1, 4))
def test_no_group_stands_in_two_splits(pool: list[Example], seed: int, official: bool, tests: int, evals: int) -> None:
    official_test = frozenset({"0", "1", "2", "3"}) if official else NONE
    settings = _settings(seed=seed, test_examples=tests, eval_examples=evals)
    splits = draw_splits(pool, settings, official_test)
    train, evaluation, test = ({example.group for example in split} for split in splits)
    assert not train & evaluation
    assert not train & test
    assert not evaluation & test
    assert not (train | evaluation) & official_test
    assert len(splits[2]) == tests
    assert len(splits[1]) == evals
    assert train


@given(POOLS, SEEDS, st.integers(1, 4), st.integers(1, 4))
def test_fewer_training_examples_are_a_prefix_and_move_nothing_else(
    pool: list[Example], seed: int, few: int, more: int
) -> None:
    few, more = min(few, more), max(few, more)
    small = draw_splits(pool, _settings(seed=seed, train_examples=few), NONE)
    large = draw_splits(pool, _settings(seed=seed, train_examples=more), NONE)
    everything = draw_splits(pool, _settings(seed=seed), NONE)
    assert small[0] == large[0][:few]
    assert large[0] == everything[0][:more]
    assert small[1:] == large[1:] == everything[1:]


@given(POOLS, SEEDS, st.randoms(use_true_random=False))
def test_input_order_does_not_matter(pool: list[Example], seed: int, chance: random.Random) -> None:
    mixed = chance.sample(pool, len(pool))
    assert draw_splits(mixed, _settings(seed=seed), NONE) == draw_splits(pool, _settings(seed=seed), NONE)


def test_the_seed_decides_the_order() -> None:
    pool = _pool([1] * 50)
    assert shuffled(pool, 0) == shuffled(pool, 0)
    assert shuffled(pool, 0) != shuffled(pool, 1)


def test_default_sizes() -> None:
    train, evaluation, test = draw_splits(_pool([1] * 100), _settings(), NONE)
    assert (len(train), len(evaluation), len(test)) == (80, 10, 10)
    train, evaluation, test = draw_splits(_pool([1] * 3), _settings(), NONE)
    assert (len(train), len(evaluation), len(test)) == (1, 1, 1)
    train, evaluation, test = draw_splits(_pool([1] * 100), _settings(), frozenset(map(str, range(50))))
    assert (len(train), len(evaluation), len(test)) == (45, 5, 50)


@pytest.mark.parametrize(
    ("key", "there"), [("test_examples", 20), ("eval_examples", 18), ("train_examples", 16)]
)  # a tenth of twenty rows is taken for each of test and eval
def test_too_large_a_size_says_how_many_rows_there_are(key: str, there: int) -> None:
    with pytest.raises(DatasetError, match=rf"dataset\.{key} must be at most {there}, .*it is 99\. Lower dataset"):
        draw_splits(_pool([1] * 20), _settings(**{key: 99}), NONE)


@given(POOLS, SEEDS)
def test_hold_out_keeps_groups_apart(pool: list[Example], seed: int) -> None:
    train, evaluation = hold_out(pool, _settings(seed=seed))
    assert evaluation
    assert not {example.group for example in train} & {example.group for example in evaluation}


@given(POOLS, SEEDS, st.integers(0, 12))
def test_a_sample_keeps_the_order_of_the_file(pool: list[Example], seed: int, size: int) -> None:
    chosen = _ids(sample(pool, size, seed, "eval_examples"))
    assert len(chosen) == size
    assert chosen == [row_id for row_id in _ids(pool) if row_id in set(chosen)]
    assert sample(pool, None, seed, "eval_examples") == pool
