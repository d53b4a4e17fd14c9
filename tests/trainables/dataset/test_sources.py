"""Loading a study's examples: which datasets are named, and settings that lead to none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.trainables.raw_rows import prompt_rows
from trainables.dataset.files import DatasetError
from trainables.dataset.named import NAMED
from trainables.dataset.sources import load_examples
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
