"""Reading CoNaLa: what becomes of good rows, its questions in one split each, and what is said of bad ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.places import SHARED
from tests.support.trainables.raw_rows import fake_hub, write
from trainables.dataset.files import DatasetError
from trainables.dataset.sources import load_examples
from trainables.settings import DatasetSettings

CONALA = SHARED / "data" / "conala" / "mconala_train.json"


def test_stackoverflow_prefers_the_rewritten_intent_and_keeps_questions_together(tmp_path: Path) -> None:
    def row(i: int) -> dict[str, Any]:
        rewritten = None if i % 2 else f"clear {i}"
        return {"intent": "raw", "rewritten_intent": rewritten, "snippet": f"x = {i}", "question_id": i // 3}

    rows = [row(i) for i in range(30)]
    settings = DatasetSettings("stackoverflow", source=write(tmp_path / "c.json", rows))
    splits = load_examples(settings).examples.values()
    groups = [{example.group for example in split} for split in splits]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    for example in (example for split in splits for example in split):
        i = int(example.completion.removeprefix("x = "))
        assert example.prompt == f"Question: {'raw' if i % 2 else f'clear {i}'}\nCode:\n"
        assert (example.context, example.label, example.group) == ("", None, str(i // 3))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"intent": "i", "question_id": 1}, "row 1: every row needs `snippet`"),
        ({"intent": "i", "snippet": "s"}, "row 1: `question_id` must be a number or a text; it is not \\(null\\)"),
        ({"intent": "i", "snippet": "s", "question_id": 1, "rewritten_intent": 3}, "`rewritten_intent` must be text"),
    ],
)
def test_malformed_conala(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load_examples(DatasetSettings("stackoverflow", source=write(tmp_path / "c.json", [row])))


def test_conala_from_the_hub_falls_back_to_its_parquet_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(hub_id: str, *configuration: str, **options: str) -> dict[str, Any]:
        if configuration:
            raise RuntimeError("Dataset scripts are no longer supported, but found conala.py")
        assert options == {"data_dir": "curated", "revision": "refs/convert/parquet"}
        return {
            split: [{"intent": "i", "rewritten_intent": None, "snippet": str(i), "question_id": i} for i in ids]
            for split, ids in (("train", range(20)), ("test", range(20, 25)))
        }

    fake_hub(monkeypatch, load)
    train, evaluation, test = load_examples(DatasetSettings("stackoverflow", source="neulab/conala")).examples.values()
    assert (len(train), len(evaluation)) == (18, 2)
    assert {example.group for example in test} == {str(i) for i in range(20, 25)}


@pytest.mark.skipif(not CONALA.is_file(), reason="../shared/data/conala is not there")
def test_conalas_questions_stand_in_one_split() -> None:
    splits = load_examples(DatasetSettings("stackoverflow", source=str(CONALA))).examples.values()
    groups = [{example.group for example in split} for split in splits]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    assert 2350 < sum(map(len, splits)) <= 2379
