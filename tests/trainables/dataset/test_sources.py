"""Loading a study's examples: which datasets are named, and settings that lead to none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.trainables.raw_rows import prompt_rows
from trainables.dataset.files import DatasetError
from trainables.dataset.named import NAMED
from trainables.dataset.sources import load_examples, row_counts
from trainables.dataset.splits import Draw, Example, Splits
from trainables.settings import DatasetSettings


def test_settings_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"must be pubmedqa or stackoverflow where .* it is 'mine'\. Choose"):
        load_examples(DatasetSettings("mine"))
    with pytest.raises(DatasetError, match=r"must name a file that is there; .*a\.jsonl is not\. Check the path"):
        load_examples(DatasetSettings("mine", train_file=str(tmp_path / "a.jsonl")))
    with pytest.raises(DatasetError, match=r"must name a file that is there; .*b\.json is not"):
        load_examples(DatasetSettings("pubmedqa", source="data/b.json"))
    with pytest.raises(DatasetError, match=r"dataset\.source must be a regular file; .* is a folder"):
        load_examples(DatasetSettings("pubmedqa", source=str(tmp_path)))
    with pytest.raises(DatasetError, match="`sample` for pubmedqa only"):
        load_examples(DatasetSettings("stackoverflow", source="sample"))
    with pytest.raises(DatasetError, match=r"test_examples needs a dataset\.test_file; it is 5"):
        load_examples(DatasetSettings("mine", train_file=prompt_rows(tmp_path / "a.jsonl", 9), test_examples=5))
    (tmp_path / "c.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DatasetError, match=r"is text in UTF-16\. Turn it into UTF-8: `iconv -f UTF-16 -t UTF-8"):
        load_examples(DatasetSettings("mine", train_file=str(tmp_path / "c.jsonl")))


def test_the_named_datasets_are_the_documented_ones() -> None:
    assert set(NAMED) == {"pubmedqa", "stackoverflow"}


def test_rows_and_prompts_that_two_splits_share_are_counted_in_each() -> None:
    def draw(*rows: tuple[str, str]) -> Draw:
        return Draw([Example("", prompt, "", answer, None, prompt, str(n)) for n, (prompt, answer) in enumerate(rows)])

    train, evaluation = draw(("a", "1"), ("b", "1"), ("c", "1")), draw(("a", "1"), ("a", "1"), ("b", "2"))
    counts = row_counts(Splits(train, evaluation, draw(("d", "1"), ("c", "1"))))
    assert {name: own["overlap"] for name, own in counts.items()} == {"train": 2, "eval": 2, "test": 1}
    assert {name: own["shared_prompts"] for name, own in counts.items()} == {"train": 1, "eval": 1, "test": 0}
    assert {name: own["duplicates"] for name, own in counts.items()} == {"train": 0, "eval": 1, "test": 0}
