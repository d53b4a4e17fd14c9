"""Loads a study's examples: those of a named dataset, or of the user's own files."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from trainables.dataset.files import DatasetError
from trainables.dataset.named import NAMED
from trainables.dataset.own_files import own_splits
from trainables.dataset.splits import Splits, draw_splits
from trainables.settings import DatasetSettings


def load_examples(settings: DatasetSettings) -> Splits:
    """Returns the training, evaluation and test examples that the settings ask for, before tokenization.

    Raises DatasetError where the data is missing, malformed, or less than asked for.
    """
    if settings.train_file is not None:
        splits = own_splits(settings, settings.train_file)
    elif settings.name in NAMED:
        pool, official_test = NAMED[settings.name](settings.source)
        splits = draw_splits(pool, settings, official_test)
    else:
        rule = f"dataset.name must be {' or '.join(NAMED)} where there is no dataset.train_file"
        remedy = "Choose one of them, or give your own rows as dataset.train_file and dataset.eval_file."
        raise DatasetError(f"{rule}; it is {settings.name!r}. {remedy}")
    for name, draw in (("training", splits.train), ("evaluation", splits.eval)):
        if not draw.examples:
            remedy = "Give more data, or ask for fewer rows elsewhere."
            raise DatasetError(f"The {name} split must hold at least one row; none is left for it. {remedy}")
    return splits


def row_counts(splits: Splits) -> dict[str, dict[str, int]]:
    """Counts by split the rows that were there for it and are not in it, and those that it has twice or shares.

    `duplicates`: rows equal to another of the split. `overlap`: rows of training that are measured on too, of the
    others that are trained on too. `shared_prompts`: rows whose prompt alone is; an empty prompt says nothing.
    """
    drawn = splits.by_name
    pairs = {name: [(one.prompt, one.completion) for one in draw.examples] for name, draw in drawn.items()}
    trained, measured = set(pairs["train"]), {*pairs["eval"], *pairs["test"]}
    others = {"train": measured, "eval": trained, "test": trained}
    return {
        name: {
            "left_out": draw.left_out,
            "unused": draw.unused,
            "empty": draw.empty,
            "overlap": sum(pair in others[name] for pair in pairs[name]),
            "duplicates": len(pairs[name]) - len(set(pairs[name])),
            "shared_prompts": _shared_prompts(pairs[name], others[name]),
        }
        for name, draw in drawn.items()
    }


def _shared_prompts(rows: Sequence[tuple[str, str]], others: AbstractSet[tuple[str, str]]) -> int:
    prompts = {prompt for prompt, _ in others if prompt.strip()}
    return sum(row[0] in prompts and row not in others for row in rows)
