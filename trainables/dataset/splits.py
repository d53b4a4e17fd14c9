"""Splits examples into training, evaluation and test: shuffled by a seed, no group in two of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from trainables.dataset.files import DatasetError
from trainables.settings import DatasetSettings

HELD_OUT_FRACTION = 0.1


@dataclass(frozen=True)
class Example:
    """One row as text: the prompt in three parts, of which only `context` may lose tokens, and its completion."""

    prompt_head: str
    context: str
    prompt_tail: str
    completion: str
    label: str | None  # the right answer, where accuracy is measured
    group: str  # rows of one group never stand in two splits
    row_id: str

    @property
    def prompt(self) -> str:
        """The whole prompt."""
        return self.prompt_head + self.context + self.prompt_tail


Splits = tuple[list[Example], list[Example], list[Example]]  # training, evaluation, test
Pool = tuple[list[Example], frozenset[str]]  # all examples, and the groups of an official test split


def shuffled(examples: Sequence[Example], seed: int) -> list[Example]:
    """Returns the examples in an order that depends on the seed and their text alone, groups side by side."""
    return sorted(examples, key=lambda example: _place(example, seed))


def _place(example: Example, seed: int) -> tuple[str, str]:
    return _digest(f"{seed}:{example.group}"), _digest(f"{example.prompt}\0{example.completion}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def draw_splits(pool: Sequence[Example], settings: DatasetSettings, official_test: AbstractSet[str]) -> Splits:
    """Draws training, evaluation and test examples from one pool.

    The test split is drawn first, then the evaluation's, so neither depends on how many are trained on; fewer training
    examples are a prefix of more. Groups in `official_test` are the test split, where there are any. Sizes that are
    None: a tenth of the pool for what is drawn, all of an official test split, and all that is left for training.
    Raises DatasetError where the pool is too small.
    """
    rest = shuffled(pool, settings.seed)
    if official_test:
        test = [example for example in rest if example.group in official_test]
        rest = [example for example in rest if example.group not in official_test]
        test = first(test, settings.test_examples, "test_examples")
    else:
        test, rest = _take(rest, _size(settings.test_examples, pool), "test_examples")
    held_out_of = rest if official_test else pool
    evaluation, rest = _take(rest, _size(settings.eval_examples, held_out_of), "eval_examples")
    return first(rest, settings.train_examples, "train_examples"), evaluation, test


def hold_out(pool: Sequence[Example], settings: DatasetSettings) -> tuple[list[Example], list[Example]]:
    """Draws training and evaluation examples from a training file that came without an evaluation file."""
    evaluation, rest = _take(shuffled(pool, settings.seed), _size(settings.eval_examples, pool), "eval_examples")
    return first(rest, settings.train_examples, "train_examples"), evaluation


def sample(examples: Sequence[Example], size: int | None, seed: int, key: str) -> list[Example]:
    """Draws `size` examples by the seed (None: all), in the order they came in."""
    chosen = {example.row_id for example in first(shuffled(examples, seed), size, key)}
    return [example for example in examples if example.row_id in chosen]


def first(ordered: Sequence[Example], size: int | None, key: str) -> list[Example]:
    """Returns the first `size` examples (None: all); raises DatasetError where there are fewer."""
    if size is not None and size > len(ordered):
        remedy = f"Lower dataset.{key}, or give more data."
        raise DatasetError(f"dataset.{key} must be at most {len(ordered)}, the rows there are; it is {size}. {remedy}")
    return list(ordered[:size])


def _take(ordered: Sequence[Example], size: int, key: str) -> tuple[list[Example], list[Example]]:
    """Returns the first `size` examples, and the rest without their groups' other members."""
    taken = first(ordered, size, key)
    groups = {example.group for example in taken}
    return taken, [example for example in ordered[size:] if example.group not in groups]


def _size(asked: int | None, pool: Sequence[Example]) -> int:
    return max(1, round(HELD_OUT_FRACTION * len(pool))) if asked is None else asked
