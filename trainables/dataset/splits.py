"""Splits examples into training, evaluation and test: shuffled by a seed, no group in two of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from trainables.dataset.files import DatasetError
from trainables.dataset.whole_groups import Filling, fewest_left_out, most_of_one_group, whole_size
from trainables.settings import DatasetSettings
from trainables.shown_values import shown

HELD_OUT_FRACTION = 0.1
MOST_LEFT_OUT_FRACTION = 0.25  # of the rows that a split is drawn from; more is refused
GIVEN_BACK = (8, 64)  # groups taken last, which are chosen anew where the first choice does not add up


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True)
class Draw:
    """One split's examples, and the rows that were there for it and are not in it.

    `left_out` rows share a group with rows of the split, which has room for a part of the group alone; `unused` ones
    are more than was asked for; `empty` ones have no completion.
    """

    examples: Sequence[Example] = ()
    left_out: int = 0
    unused: int = 0
    empty: int = 0


@dataclass(frozen=True)
class Splits:
    """The three splits."""

    train: Draw
    eval: Draw
    test: Draw

    @property
    def by_name(self) -> dict[str, Draw]:
        """The splits by their names, in order."""
        return {"train": self.train, "eval": self.eval, "test": self.test}

    @property
    def examples(self) -> dict[str, Sequence[Example]]:
        """Each split's examples, by its name."""
        return {name: draw.examples for name, draw in self.by_name.items()}


Pool = tuple[list[Example], frozenset[str]]  # all examples, and the groups of an official test split


def shuffled(examples: Sequence[Example], seed: int) -> list[Example]:
    """Returns the examples in an order that depends on the seed and their text alone, groups side by side."""
    return sorted(examples, key=lambda example: _place(example, seed))


def _place(example: Example, seed: int) -> tuple[bytes, bytes]:
    return _digest(f"{seed}:{example.group}"), _digest(f"{example.prompt}\0{example.completion}")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def draw_splits(pool: Sequence[Example], settings: DatasetSettings, official_test: AbstractSet[str]) -> Splits:
    """Draws training, evaluation and test examples from one pool.

    The test split is drawn first, then the evaluation's, so neither depends on how many are trained on; fewer training
    examples are a prefix of more. Groups in `official_test` are the test split, where there are any. Sizes that are
    None: a tenth of the pool for what is drawn, all of an official test split, and all that is left for training.
    Raises DatasetError where the pool is too small, or its groups too large to be kept apart.
    """
    pool, empty = less_empty(pool, "the data")
    official = [example for example in pool if example.group in official_test]
    rest = grouped([example for example in pool if example.group not in official_test], settings)
    if official_test:
        test = first(shuffled(official, settings.seed), settings.test_examples, "test_examples")
    else:
        test, rest = _take(shuffled(rest, settings.seed), settings.test_examples, len(pool), "test_examples")
    train, evaluation = hold_out(rest, settings, len(rest) if official_test else len(pool))
    return Splits(with_empty(train, empty), evaluation, test)


def hold_out(pool: Sequence[Example], settings: DatasetSettings, of_rows: int | None = None) -> tuple[Draw, Draw]:
    """Draws training and evaluation examples from rows that both come from.

    Where `eval_examples` is None they are a tenth of `of_rows` (None: of the pool). Raises DatasetError as
    `draw_splits` does.
    """
    of_rows = len(pool) if of_rows is None else of_rows
    evaluation, rest = _take(shuffled(pool, settings.seed), settings.eval_examples, of_rows, "eval_examples")
    return first(rest, settings.train_examples, "train_examples"), evaluation


def grouped(examples: Sequence[Example], settings: DatasetSettings) -> list[Example]:
    """Returns the examples in the groups that `dataset.group` asks for: their own, or, by `none`, each by itself."""
    if settings.group != "none":
        return list(examples)
    seen: Counter[bytes] = Counter()
    return [replace(example, group=_by_itself(example, seen)) for example in examples]


def _by_itself(example: Example, seen: Counter[bytes]) -> str:
    """A group for this row alone; equal rows are numbered, so that the order of the file does not matter."""
    text = _digest(f"{example.prompt}\0{example.completion}")
    seen[text] += 1
    return f"{text.hex()}:{seen[text]}"


def less_empty(examples: Sequence[Example], source: str) -> tuple[list[Example], int]:
    """Returns the examples that have a completion, and the count of the others, which would teach silence.

    A completion of white space alone counts as none. Raises DatasetError where no example has one.
    """
    full = [example for example in examples if example.completion.strip()]
    if examples and not full:
        rule = f"Rows need a completion that is not empty; in {source} all {len(examples)} are empty"
        raise DatasetError(f"{rule}. Write there what the model should answer.")
    return full, len(examples) - len(full)


def with_empty(draw: Draw, empty: int) -> Draw:
    """Returns the draw with the count of rows that had no completion."""
    return replace(draw, empty=empty)


def sample(examples: Sequence[Example], size: int | None, seed: int, key: str) -> Draw:
    """Draws `size` examples by the seed (None: all), in the order they came in."""
    draw = first(shuffled(examples, seed), size, key)
    chosen = {example.row_id for example in draw.examples}
    return replace(draw, examples=[example for example in examples if example.row_id in chosen])


def first(ordered: Sequence[Example], size: int | None, key: str) -> Draw:
    """Returns the first `size` examples (None: all); raises DatasetError where there are fewer."""
    _check_size(size, ordered, key)
    examples = list(ordered[:size])
    return Draw(examples, unused=len(ordered) - len(examples))


def _check_size(size: int | None, rows: Sequence[Example], key: str) -> None:
    if size is not None and size > len(rows):
        remedy = f"Lower dataset.{key}, or give more data."
        raise DatasetError(f"dataset.{key} must be at most {len(rows)}, the rows there are; it is {size}. {remedy}")


def _take(ordered: Sequence[Example], asked: int | None, of_rows: int, key: str) -> tuple[Draw, list[Example]]:
    """Returns a split of whole groups, and the rows of all other groups.

    Exactly `asked` rows; None: a tenth of `of_rows`, or up to twice that where whole groups make no tenth. Where whole
    groups do not add up, the split has parts of groups, chosen so that as few rows as can be are left out.
    """
    _check_size(asked, ordered, key)
    least = max(1, round(HELD_OUT_FRACTION * of_rows)) if asked is None else asked
    if least >= len(ordered):
        return Draw(list(ordered)), []
    sizes = Counter(example.group for example in ordered)
    taken = _groups_for(sizes, least)
    if asked is None and (taken is None or _left_out(taken, sizes)):
        more = whole_size(Counter(sizes.values()), least) or len(ordered)
        taken = _groups_for(sizes, more) if more < len(ordered) else taken
    rest = [example for example in ordered if taken is not None and example.group not in taken]
    if taken is None or (taken and not _splits_well(taken, sizes, rest)):
        raise DatasetError(_one_group_too_large(ordered, sizes, least, key))
    return Draw(_members(ordered, taken), _left_out(taken, sizes)), rest


def _groups_for(sizes: Mapping[str, int], rows: int) -> dict[str, int] | None:
    """Returns how many rows of which groups make up `rows`, of `sizes` in shuffled order; None: nothing does.

    The first groups that fit are taken. Where they do not add up, the last of them are given back and chosen anew,
    all of them at last.
    """
    most, left, taken = most_of_one_group(rows), rows, {}
    for group, size in sizes.items():
        if size <= min(most, left):
            taken[group] = size
            left -= size
    if not left:
        return taken
    for kept in (*(max(0, len(taken) - back) for back in GIVEN_BACK), 0):
        groups = dict(list(taken.items())[:kept])
        others = {group: size for group, size in sizes.items() if group not in groups}
        filling = fewest_left_out(Counter(others.values()), rows - sum(groups.values()), most)
        if filling is not None and (not filling.left_out or not kept):
            return groups | _first_of_size(others, filling)
    return None


def _first_of_size(sizes: Mapping[str, int], filling: Filling) -> dict[str, int]:
    """Returns rows by group: of each size that the filling asks for, the first groups of that size."""
    whole, parts, taken = Counter(filling.whole), list(filling.parts), {}
    for group, size in sizes.items():
        part = next((part for part in parts if part[0] == size), None)
        if whole[size]:
            whole[size] -= 1
            taken[group] = size
        elif part:
            parts.remove(part)
            taken[group] = part[1]
    return taken


def _members(ordered: Sequence[Example], taken: Mapping[str, int]) -> list[Example]:
    seen: Counter[str] = Counter()
    members = []
    for example in ordered:
        seen[example.group] += 1
        if seen[example.group] <= taken.get(example.group, 0):
            members.append(example)
    return members


def _left_out(taken: Mapping[str, int], sizes: Mapping[str, int]) -> int:
    return sum(sizes[group] - rows for group, rows in taken.items())


def _splits_well(taken: Mapping[str, int], sizes: Mapping[str, int], rest: Sequence[Example]) -> bool:
    """Whether few rows are left out, and the rest is not one group alone."""
    few = _left_out(taken, sizes) <= MOST_LEFT_OUT_FRACTION * sum(sizes.values())
    return few and (len(rest) == 1 or len({example.group for example in rest}) > 1)


def _one_group_too_large(ordered: Sequence[Example], sizes: Counter[str], rows: int, key: str) -> str:
    group, size = sizes.most_common(1)[0]
    prompt = next(example.prompt for example in ordered if example.group == group)
    rule = f"dataset.{key} must leave both splits several prompts, and no prompt may be in two splits"
    found = f"it asks for {rows} of {len(ordered)} rows, and {size} rows share one prompt, {shown(prompt)}"
    others = {"eval_examples": "Give these rows as dataset.eval_file", "test_examples": "Ask for other sizes"}
    return f"{rule}; {found}. {others[key]}, or set dataset.group: none, which takes each row by itself."
