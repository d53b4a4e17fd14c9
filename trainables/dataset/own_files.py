"""Reads a user's own files: JSON Lines with a prompt and a completion in each row."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from trainables.dataset.files import DatasetError, RowFault, read_rows
from trainables.dataset.reading.forms import Columns, form_of
from trainables.dataset.reading.row_faults import checked, text_faults
from trainables.dataset.splits import (
    Draw,
    Example,
    Splits,
    first,
    grouped,
    hold_out,
    less_empty,
    sample,
    shuffled,
    with_empty,
)
from trainables.settings import DatasetSettings

KEYS = ("prompt", "completion")


def own_splits(settings: DatasetSettings, train_file: str) -> Splits:
    """Reads training, evaluation and test examples from the files that the settings name.

    Without an evaluation file its examples are held out of the training file; without a test file there is no test
    split. Raises DatasetError for what is missing, malformed, or less than asked for.
    """
    if settings.test_file is None and settings.test_examples:
        rule = f"dataset.test_examples needs a dataset.test_file; it is {settings.test_examples} without one"
        raise DatasetError(f"{rule}. Give the file, or leave test_examples out.")
    rows, empty = less_empty(_own_examples(train_file, "train_file"), train_file)
    if settings.eval_file is None:
        train, evaluation = hold_out(grouped(rows, settings), settings)
    else:
        train = first(shuffled(rows, settings.seed), settings.train_examples, "train_examples")
        evaluation = _sampled(settings.eval_file, settings.eval_examples, settings.seed, "eval")
    test = Draw()
    if settings.test_file is not None:
        test = _sampled(settings.test_file, settings.test_examples, settings.seed, "test")
    return Splits(with_empty(train, empty), evaluation, test)


def _sampled(file: str, size: int | None, seed: int, split: str) -> Draw:
    rows, empty = less_empty(_own_examples(file, f"{split}_file"), file)
    return with_empty(sample(rows, size, seed, f"{split}_examples"), empty)


def _own_examples(file: str, key: str) -> list[Example]:
    path, key = Path(file), f"dataset.{key}"
    name = path.name

    def example(where: str, row: Mapping[str, Any]) -> Example:
        prompt, completion = row["prompt"], row["completion"]
        # An empty prompt says nothing, so rows of it are no group; equal rows of it are.
        group = prompt if prompt.strip() else f"\0{completion}"
        # The whole prompt is context: a long one loses its start, and keeps the end, nearest to the completion.
        return Example("", prompt, "", completion, label=None, group=group, row_id=f"{name}:{where}")

    return checked(f"{key}, {file}", read_rows(path, key), partial(_faults, path), example)


def _faults(file: Path, row: Any) -> list[RowFault]:
    """What is wrong with a row; of one in another form, which that is and how to turn the file."""
    faults = text_faults(row, KEYS)
    form = form_of(row) if faults and isinstance(row, Mapping) else None
    if form is None or (all(name in row for name in KEYS) and not isinstance(form, Columns)):
        return faults
    keys = ", ".join(map(str, row))[:200]
    found = f"it looks like {form.name}"
    return [
        RowFault("every row needs `prompt` and `completion`", found, form.remedy_for(file), f"the keys are: {keys}")
    ]
