"""Reads a user's own files: JSON Lines with a prompt and a completion in each row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainables.dataset.files import DatasetError, checked, read_rows, text_faults
from trainables.dataset.splits import Example, Splits, first, hold_out, sample, shuffled
from trainables.settings import DatasetSettings


def own_splits(settings: DatasetSettings, train_file: str) -> Splits:
    """Reads training, evaluation and test examples from the files that the settings name.

    Without an evaluation file its examples are held out of the training file; without a test file there is no test
    split. Raises DatasetError for what is missing, malformed, or less than asked for.
    """
    if settings.test_file is None and settings.test_examples:
        rule = f"dataset.test_examples needs a dataset.test_file; it is {settings.test_examples} without one"
        raise DatasetError(f"{rule}. Give the file, or leave test_examples out.")
    train = _own_examples(train_file, "train_file")
    if settings.eval_file is None:
        train, evaluation = hold_out(train, settings)
    else:
        train = first(shuffled(train, settings.seed), settings.train_examples, "train_examples")
        rows = _own_examples(settings.eval_file, "eval_file")
        evaluation = sample(rows, settings.eval_examples, settings.seed, "eval_examples")
    if settings.test_file is None:
        return train, evaluation, []
    rows = _own_examples(settings.test_file, "test_file")
    return train, evaluation, sample(rows, settings.test_examples, settings.seed, "test_examples")


def _own_examples(file: str, key: str) -> list[Example]:
    def example(where: str, row: Mapping[str, Any]) -> Example:
        # The whole prompt is context: a long one loses its start, and keeps the end, nearest to the completion.
        row_id = f"{Path(file).name}:{where.removeprefix('row ')}"
        return Example("", row["prompt"], "", row["completion"], label=None, group=row["prompt"], row_id=row_id)

    rows = read_rows(Path(file), f"dataset.{key}")
    return checked(file, rows, lambda row: text_faults(row, ("prompt", "completion")), example)
