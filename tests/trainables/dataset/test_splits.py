"""Splits: disjoint by group, nested, independent of input order and of the training size. All comparisons are exact."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.dataset.files import DatasetError
from trainables.dataset.splits import Draw, Example, Splits, draw_splits, hold_out, sample, shuffled
from trainables.settings import DatasetSettings

NONE: frozenset[str] = frozenset()


def _pool(group_sizes: Sequence[int]) -> list[Example]:
    return [
        Example(f"prompt {group}", "", "", f"completion {member}", None, str(group), f"{group}-{member}")
        for group, size in enumerate(group_sizes)
        for member in range(size)
    ]


def _settings(**values: object) -> DatasetSettings:
    return dataclasses.replace(DatasetSettings("mine"), **values)  # type: ignore[arg-type]


def _ids(examples: Sequence[Example]) -> list[str]:
    return [example.row_id for example in examples]


def _drawn(pool: list[Example], official: frozenset[str] = NONE, **values: object) -> list[list[Example]]:
    splits = draw_splits(pool, _settings(**values), official)
    return [list(split) for split in splits.examples.values()]


def _sizes(draws: Sequence[Draw | None]) -> list[int]:
    return [len(draw.examples) for draw in draws if draw is not None]


POOLS = st.lists(st.integers(1, 4), min_size=12, max_size=40).map(_pool)
SEEDS = st.integers(0, 1000)
ANY_SIZES = st.lists(st.sampled_from([1, 1, 1, 2, 3, 5, 8, 20, 60]), min_size=1, max_size=30)


@given(POOLS, SEEDS, st.booleans(), st.integers(0, 4), st.integers(1, 4))
def test_no_group_stands_in_two_splits(pool: list[Example], seed: int, official: bool, tests: int, evals: int) -> None:
    official_test = frozenset({"0", "1", "2", "3"}) if official else NONE
    splits = _drawn(pool, official_test, seed=seed, test_examples=tests, eval_examples=evals)
    train, evaluation, test = ({example.group for example in split} for split in splits)
    assert not train & evaluation
    assert not train & test
    assert not evaluation & test
    assert not (train | evaluation) & official_test
    assert len(splits[2]) == tests
    assert len(splits[1]) == evals
    assert train


@given(ANY_SIZES, SEEDS, st.one_of(st.none(), st.integers(0, 12)), st.one_of(st.none(), st.integers(1, 12)))
def test_every_row_is_in_one_split_or_counted(
    sizes: list[int], seed: int, tests: int | None, evals: int | None
) -> None:
    pool = _pool(sizes)
    settings = _settings(seed=seed, test_examples=tests, eval_examples=evals, train_examples=None)
    try:
        splits = draw_splits(pool, settings, NONE)
    except DatasetError as error:
        refused = str(error)
    else:
        refused = ""
        if not splits.train.examples:  # all rows are asked for elsewhere, which loading refuses
            return
    if refused:
        assert "share one prompt" in refused or "must be at most" in refused
        return
    rows = [row_id for split in splits.examples.values() for row_id in _ids(split)]
    assert len(rows) == len(set(rows)) == len(pool) - sum(draw.left_out for draw in splits.by_name.values())
    assert sum(draw.unused for draw in splits.by_name.values()) == 0
    _no_group_in_two(splits)
    _no_group_fills_a_split(splits)
    assert tests is None or len(splits.test.examples) == tests
    assert evals is None or len(splits.eval.examples) == evals
    for asked, draw in ((tests, splits.test), (evals, splits.eval)):
        tenth = max(1, round(0.1 * len(pool)))
        assert asked is not None or tenth <= len(draw.examples) <= 2 * tenth
        assert draw.left_out <= len(pool) / 4


def _no_group_in_two(splits: Splits) -> None:
    groups = [{example.group for example in split} for split in splits.examples.values()]
    assert sum(map(len, groups)) == len(set().union(*groups))


def _no_group_fills_a_split(splits: Splits) -> None:
    """Half of a drawn split at most, rounded up, is one group; the training split has two where it has two rows."""
    for draw in (splits.eval, splits.test):
        counts = Counter(example.group for example in draw.examples)
        assert max(counts.values(), default=0) <= (len(draw.examples) + 1) // 2
    rest = {example.group for example in splits.train.examples}
    assert len(rest) > 1 or len(splits.train.examples) <= 1


@given(st.lists(st.sampled_from([1, 1, 2, 3, 6]), min_size=4, max_size=30), st.integers(1, 8))
def test_how_many_rows_are_trained_on_does_not_depend_on_the_seed(sizes: list[int], evals: int) -> None:
    found = set()
    for seed in range(12):
        try:
            train, evaluation = hold_out(_pool(sizes), _settings(seed=seed, eval_examples=evals))
            found.add((len(train.examples), len(evaluation.examples), evaluation.left_out))
        except DatasetError as error:
            found.add((str(error).split(";")[0], 0, 0))
    # What is left out is a minimum over the groups' sizes; which of equally good groups are taken, the seed decides.
    assert len(found) == 1 or all(isinstance(one[0], str) or one[1] + one[0] + one[2] == sum(sizes) for one in found)
    assert len({one for one in found if not isinstance(one[0], str)}) <= 1


@pytest.mark.parametrize("seed", range(20))
def test_a_prompt_that_most_rows_share_is_trained_on(seed: int) -> None:
    train, evaluation = hold_out(_pool([60] + [1] * 40), _settings(seed=seed, eval_examples=10))
    assert (len(train.examples), len(evaluation.examples), evaluation.left_out) == (90, 10, 0)
    assert len({example.group for example in evaluation.examples}) == 10


@pytest.mark.parametrize(
    ("sizes", "asked", "number"), [([60], 5, 60), ([98, 1, 1], 10, 98), ([60, 30, 8], 20, 60), ([3, 3], None, 3)]
)
def test_groups_that_are_too_large_are_named_with_the_way_out(sizes: list[int], asked: int | None, number: int) -> None:
    message = rf'{number} rows share one prompt, "prompt 0"\. Give these rows as dataset\.eval_file, or .*group: none'
    with pytest.raises(DatasetError, match=message):
        hold_out(_pool(sizes), _settings(eval_examples=asked))
    ungrouped = draw_splits(_pool(sizes), _settings(eval_examples=asked, test_examples=0, group="none"), NONE)
    asked = asked or 1
    assert _sizes([ungrouped.train, ungrouped.eval]) == [sum(sizes) - asked, asked]


@given(POOLS, SEEDS, st.randoms(use_true_random=False))
def test_without_groups_each_row_is_drawn_by_itself_whatever_their_order(
    pool: list[Example], seed: int, chance: random.Random
) -> None:
    pool = [*pool, *(dataclasses.replace(one, row_id=f"again {one.row_id}") for one in pool[:5])]  # equal rows
    settings = _settings(seed=seed, group="none", eval_examples=7, test_examples=3)
    drawn, mixed = (draw_splits(rows, settings, NONE) for rows in (pool, chance.sample(pool, len(pool))))
    assert _sizes([*drawn.by_name.values()]) == [len(pool) - 10, 7, 3]
    for name in ("train", "eval", "test"):
        texts = [[(one.prompt, one.completion) for one in splits.examples[name]] for splits in (drawn, mixed)]
        assert texts[0] == texts[1]


@given(POOLS, SEEDS, st.integers(1, 4), st.integers(1, 4))
def test_fewer_training_examples_are_a_prefix_and_move_nothing_else(
    pool: list[Example], seed: int, few: int, more: int
) -> None:
    few, more = min(few, more), max(few, more)
    small = _drawn(pool, seed=seed, train_examples=few)
    large = _drawn(pool, seed=seed, train_examples=more)
    everything = _drawn(pool, seed=seed)
    assert small[0] == large[0][:few]
    assert large[0] == everything[0][:more]
    assert small[1:] == large[1:] == everything[1:]
    draw = draw_splits(pool, _settings(seed=seed, train_examples=few), NONE).train
    assert draw.unused == len(everything[0]) - few


@given(POOLS, SEEDS, st.randoms(use_true_random=False))
def test_input_order_does_not_matter(pool: list[Example], seed: int, chance: random.Random) -> None:
    mixed = chance.sample(pool, len(pool))
    assert draw_splits(mixed, _settings(seed=seed), NONE) == draw_splits(pool, _settings(seed=seed), NONE)


def test_the_seed_decides_the_order() -> None:
    pool = _pool([1] * 50)
    assert shuffled(pool, 0) == shuffled(pool, 0)
    assert shuffled(pool, 0) != shuffled(pool, 1)


def test_default_sizes() -> None:
    assert list(map(len, _drawn(_pool([1] * 100)))) == [80, 10, 10]
    assert list(map(len, _drawn(_pool([1] * 3)))) == [1, 1, 1]
    assert list(map(len, _drawn(_pool([1] * 100), frozenset(map(str, range(50)))))) == [45, 5, 50]


@pytest.mark.parametrize(
    ("key", "there"), [("test_examples", 20), ("eval_examples", 18), ("train_examples", 16)]
)  # a tenth of twenty rows is taken for each of test and eval
def test_too_large_a_size_says_how_many_rows_there_are(key: str, there: int) -> None:
    with pytest.raises(DatasetError, match=rf"dataset\.{key} must be at most {there}, .*it is 99\. Lower dataset"):
        draw_splits(_pool([1] * 20), _settings(**{key: 99}), NONE)


def test_rows_without_a_completion_are_left_out_and_counted() -> None:
    pool = [
        dataclasses.replace(one, completion=" \n" if place % 4 == 0 else "c")
        for place, one in enumerate(_pool([1] * 40))
    ]
    splits = draw_splits(pool, _settings(), NONE)
    assert splits.train.empty == 10
    assert sum(_sizes([*splits.by_name.values()])) == 30
    with pytest.raises(DatasetError, match=r"all 40 are empty\. Write there what the model should answer"):
        draw_splits([dataclasses.replace(one, completion="") for one in pool], _settings(), NONE)


@given(POOLS, SEEDS)
def test_hold_out_keeps_groups_apart(pool: list[Example], seed: int) -> None:
    train, evaluation = hold_out(pool, _settings(seed=seed))
    assert evaluation.examples
    assert not {example.group for example in train.examples} & {example.group for example in evaluation.examples}


@given(POOLS, SEEDS, st.integers(0, 12))
def test_a_sample_keeps_the_order_of_the_file(pool: list[Example], seed: int, size: int) -> None:
    draw = sample(pool, size, seed, "eval_examples")
    chosen = _ids(draw.examples)
    assert len(chosen) == size
    assert draw.unused == len(pool) - size
    assert chosen == [row_id for row_id in _ids(pool) if row_id in set(chosen)]
    assert sample(pool, None, seed, "eval_examples").examples == pool
