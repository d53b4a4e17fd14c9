"""Loads a study's examples: those of a named dataset, or of the user's own files."""

from __future__ import annotations

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
    for name, examples in zip(("training", "evaluation"), splits, strict=False):
        if not examples:
            remedy = "Give more data, or ask for fewer rows elsewhere."
            raise DatasetError(f"The {name} split must hold at least one row; none is left for it. {remedy}")
    return splits
