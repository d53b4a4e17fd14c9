"""Rows that are lost, equal or shared: counted and said, or refused where groups are too large to be kept apart."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from study.errors import DONE
from tests.border.data.test_data_rows import ROWS, plan_data
from tests.border.hostile import Hostile, table

Pair = tuple[str, str]


def pairs(sizes: Sequence[int], prompt: str = "Is it {}?") -> list[Pair]:
    """Groups of these sizes: as many rows of one prompt each."""
    return [
        (prompt.format(group), f" {member} of {group}") for group, size in enumerate(sizes) for member in range(size)
    ]


def plan_pairs(
    train: Sequence[Pair], evaluation: Sequence[Pair] = (), **dataset: Any
) -> Callable[[Path, Path], list[str]]:
    def text(rows: Sequence[Pair]) -> str:
        return "".join(f"{json.dumps({'prompt': prompt, 'completion': completion})}\n" for prompt, completion in rows)

    def write(path: Path) -> None:
        path.write_text(text(train), encoding="utf-8")
        path.with_name("eval.jsonl").write_text(text(evaluation), encoding="utf-8")

    return plan_data(write, **({"eval_file": "eval.jsonl"} if evaluation else {}), **dataset)


def shared(seed: int, **dataset: Any) -> Callable[[Path, Path], list[str]]:
    return plan_pairs(pairs([60] + [1] * 40), eval_examples=10, seed=seed, **dataset)


def done(name: str, make: Callable[[Path, Path], list[str]], *words: str, unsaid: tuple[str, ...] = ()) -> Hostile:
    return Hostile(name, make, words, unsaid, exit_code=DONE)


WAYS_OUT = ("Give these rows as dataset.eval_file", "dataset.group: none", "no prompt may be in two splits")
LEFT = "they share a prompt with rows of it"


@table(
    *(
        done(f"60 of 100 share a prompt, seed {seed}", shared(seed), "times over 90 rows", unsaid=(LEFT,))
        for seed in range(6)
    ),
    done(
        "60 of 100, each by itself",
        shared(0, group="none"),
        "times over 90 rows",
        "with a prompt that is trained on too",
    ),
    done("empty prompts", plan_pairs([("", f" bear {n}") for n in range(12)], eval_examples=2), "times over 10 rows"),
    done(
        "blank prompts", plan_pairs([(" \n", f" bear {n}") for n in range(12)], eval_examples=2), "times over 10 rows"
    ),
    done("pairs", plan_pairs(pairs([2] * 20)), "times over 36 rows", unsaid=(LEFT,)),
    done(
        "threes, and an even number asked",
        plan_pairs(pairs([3] * 20), eval_examples=5),
        "times over 54 rows",
        "1 row left out beside the evaluation split",
        LEFT,
    ),
    done(
        "fours, one asked",
        plan_pairs(pairs([4] * 20), eval_examples=1),
        "times over 76 rows",
        "3 rows left out",
        "dataset.group: none",
    ),
    done("one prompt, each by itself", plan_pairs(pairs([60]), group="none"), "times over 54 rows"),
    done(
        "one prompt, and an evaluation file",
        plan_pairs(pairs([60]), pairs([5], "Was it {}?")),
        "times over 60 rows",
        unsaid=(LEFT,),
    ),
)
def test_groups_are_kept_apart_and_nothing_is_lost_unsaid(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


@table(
    Hostile("one prompt", plan_pairs(pairs([60])), ("60 rows share one prompt", '"Is it 0?"', *WAYS_OUT)),
    Hostile(
        "98 of 100 share a prompt",
        plan_pairs(pairs([98, 1, 1]), eval_examples=10),
        ("98 rows share one prompt", *WAYS_OUT),
    ),
    Hostile("two prompts", plan_pairs(pairs([50, 50])), ("50 rows share one prompt", *WAYS_OUT)),
    Hostile(
        "one prompt of a megabyte",
        plan_pairs([("ab " * 9999, f"{n}") for n in range(30)]),
        ("30 rows share one prompt", *WAYS_OUT),
    ),
    Hostile("all rows are equal", plan_pairs([("a", "b")] * 20), ("20 rows share one prompt", *WAYS_OUT)),
    Hostile("one row", plan_pairs([("a", "b")]), ("training split must hold at least one row", "Give more data")),
    Hostile(
        "as many as there are",
        plan_pairs(pairs([1] * 9), eval_examples=9),
        ("training split must hold at least one row",),
    ),
    Hostile(
        "more than there are",
        plan_pairs(pairs([1] * 9), eval_examples=10),
        ("dataset.eval_examples must be at most 9",),
    ),
    Hostile(
        "more to train on than are left",
        plan_pairs(pairs([1] * 9), train_examples=9),
        ("dataset.train_examples must be at most 8",),
    ),
    Hostile(
        "a group by another name",
        plan_pairs(pairs([1] * 9), group="completion"),
        ("dataset.group", "must be one of prompt, none"),
    ),
    Hostile(
        "a group that is a list",
        plan_pairs(pairs([1] * 9), group=["prompt"]),
        ("dataset.group", "must be one of prompt, none"),
    ),
    Hostile(
        "test rows without a test file",
        plan_pairs(pairs([1] * 9), test_examples=2),
        ("dataset.test_examples", "test_file"),
    ),
)
def test_what_cannot_be_kept_apart_is_refused_with_its_cause(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


FEW = pairs([1] * 20)
EMPTY = "the completion is empty"


@table(
    done(
        "empty completions",
        plan_pairs([*FEW, ("a", ""), ("b", " \n")]),
        "2 rows of the training data left out",
        EMPTY,
        "times over 18 rows",
    ),
    done(
        "empty completions to evaluate on",
        plan_pairs(FEW, [*pairs([3], "b{}"), ("b", "")]),
        "1 row of the evaluation data left out",
        EMPTY,
    ),
    done("equal rows", plan_pairs([*FEW, *FEW[:1] * 3], eval_examples=2), "equal to another of it"),
    done(
        "rows trained on and measured",
        plan_pairs(FEW, FEW[:4]),
        "4 rows of the evaluation split’s 4 rows trained on too",
    ),
    done(
        "prompts trained on and measured",
        plan_pairs(FEW, [(prompt, " else") for prompt, _ in FEW[:3]]),
        "3 rows of the evaluation split’s 3 rows with a prompt that is trained on too",
    ),
    done(
        "more rows than asked for",
        plan_pairs(FEW, FEW[:9], train_examples=5, eval_examples=2),
        "15 rows of the training data not used",
        "7 rows of the evaluation data not used",
    ),
    done("the same file twice", plan_pairs(FEW, FEW), "20 rows of the evaluation split’s 20 rows trained on too"),
    Hostile(
        "nothing but empty completions",
        plan_pairs([(prompt, "") for prompt, _ in FEW]),
        ("need a completion that is not empty", "all 20 are empty", "Write there"),
    ),
    Hostile(
        "nothing but empty ones to evaluate on", plan_pairs(FEW, [("a", " ")] * 3), ("eval.jsonl all 3 are empty",)
    ),
    done(
        "the good rows",
        plan_data(lambda path: path.write_bytes(ROWS)),
        "times over 36 rows",
        unsaid=("left out:", "not used"),
    ),
)
def test_rows_that_say_nothing_or_leak_are_counted_and_said(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)
