"""Says in sentences what a study's data lost, doubled or shared between splits: its plan, its run, its report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SPLITS = {"train": "training", "eval": "evaluation", "test": "test"}


def data_notes(statistics: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns a sentence for each thing that a reader of the numbers should know; none where all rows are taken.

    `statistics` are a prepared dataset's, by split; counts that are not there count nothing.
    """
    return tuple(
        sentence
        for split, name in SPLITS.items()
        for sentence in _notes(name, statistics.get(split) if isinstance(statistics, Mapping) else None)
    )


def _notes(name: str, counts: Any) -> list[str]:
    def number(key: str) -> int:
        value = counts.get(key) if isinstance(counts, Mapping) else None
        return value if isinstance(value, int) and not isinstance(value, bool) else 0

    of_split = f"of the {name} split’s {number('rows'):,} rows"
    told = {
        "empty": f"{{}} of the {name} data left out: the completion is empty. Where the model should say nothing, "
        "write a word for that.",
        "left_out": f"{{}} left out beside the {name} split: they share a prompt with rows of it, and no prompt is in "
        "two splits (dataset.group: none takes each row by itself).",
        "unused": f"{{}} of the {name} data not used: more than the sizes ask for.",
        "dropped": f"{{}} of the {name} split left out: no target is left within dataset.max_tokens.",
        "duplicates": f"{{}} {of_split} equal to another of it.",
    }
    measured = {
        "overlap": f"{{}} {of_split} trained on too: what they measure says nothing of new rows.",
        "shared_prompts": f"{{}} {of_split} with a prompt that is trained on too, with another completion.",
    }
    every = told if name == "training" else {**told, **measured}
    return [text.format(_rows(number(key))) for key, text in every.items() if number(key) > 0]


def _rows(number: int) -> str:
    return "1 row" if number == 1 else f"{number:,} rows"
