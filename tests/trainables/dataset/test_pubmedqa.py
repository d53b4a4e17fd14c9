"""Reading PubMedQA: what becomes of good rows, its official split, and what is said of bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.places import SHARED
from tests.support.trainables.raw_rows import fake_hub, write
from trainables.dataset.files import DatasetError
from trainables.dataset.pubmedqa import ANSWERS, SAMPLE_FILE
from trainables.dataset.sources import load_examples
from trainables.settings import DatasetSettings

PUBMEDQA = SHARED / "data" / "pubmedqa" / "ori_pqal.json"


def _record(decision: str = "yes", **values: Any) -> dict[str, Any]:
    return {"QUESTION": "Is it?", "CONTEXTS": ["One.", "Two."], "LONG_ANSWER": "It is.", "final_decision": decision} | (
        values
    )


def _pubmedqa(path: Path, **values: Any) -> DatasetSettings:
    return DatasetSettings("pubmedqa", source=str(path), **values)


def test_pubmedqa_completion_starts_with_the_decision(tmp_path: Path) -> None:
    write(tmp_path / "a.json", {str(i): _record(ANSWERS[i % 3]) for i in range(10)})
    train, evaluation, test = load_examples(_pubmedqa(tmp_path / "a.json")).examples.values()
    assert (len(train), len(evaluation), len(test)) == (8, 1, 1)
    for example in train:
        assert example.prompt == "Context: One.\nTwo.\nQuestion: Is it?\nAnswer:"
        assert example.completion == f" {example.label}. It is."
        assert example.label == ANSWERS[int(example.row_id) % 3]


def test_official_test_ids_never_enter_training(tmp_path: Path) -> None:
    write(tmp_path / "a.json", {str(i): _record() for i in range(30)})
    write(tmp_path / "test_ground_truth.json", {str(i): "yes" for i in range(10)} | {"absent": "no"})
    train, evaluation, test = load_examples(_pubmedqa(tmp_path / "a.json")).examples.values()
    assert {example.row_id for example in test} == {str(i) for i in range(10)}
    assert (len(train), len(evaluation)) == (18, 2)
    assert len(load_examples(_pubmedqa(tmp_path / "a.json", test_examples=4)).test.examples) == 4


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([_record()], r"dataset\.source must hold one JSON object, id to question; .* holds a list\. Give a file like"),
        (
            {"7": _record("perhaps")},
            r'row 7: `final_decision` must be one of yes, no, maybe; .* \("perhaps"\)',
        ),
        ({"7": _record(CONTEXTS="One.")}, r'row 7: `CONTEXTS` must be a list of texts; it is not \("One\."\)'),
        ({"7": {"QUESTION": "q"}}, r"row 7: every row needs `LONG_ANSWER`"),
        ({"7": 1}, r"row 7: every row must be a JSON object; it is a number \(1\)"),
        ({}, "must hold at least one row"),
        ({"7": _record()}, r"training split must hold at least one row|must be at most 0"),
        ("{", r"dataset\.source must hold JSON"),
    ],
)
def test_malformed_pubmedqa(tmp_path: Path, value: Any, message: str) -> None:
    write(tmp_path / "a.json", value)
    with pytest.raises(DatasetError, match=message):
        load_examples(_pubmedqa(tmp_path / "a.json"))


def test_pubmedqa_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"pubid": i, "question": "Is it?", "context": {"contexts": ["One.", "Two."]}, "long_answer": "It is.",
         "final_decision": "no"}
        for i in range(10)
    ]  # fmt: skip
    asked = []
    fake_hub(monkeypatch, lambda *names: asked.append(names) or {"train": rows})
    train, _, test = load_examples(DatasetSettings("pubmedqa", source="qiaojin/PubMedQA")).examples.values()
    assert asked == [("qiaojin/PubMedQA", "pqa_labeled")]
    assert train[0].prompt == "Context: One.\nTwo.\nQuestion: Is it?\nAnswer:"
    assert train[0].completion == " no. It is."
    assert len(test) == 1


@pytest.mark.skipif(not SAMPLE_FILE.is_file(), reason="the sample is not there")
def test_the_shipped_sample() -> None:
    train, evaluation, test = load_examples(DatasetSettings("pubmedqa", source="sample")).examples.values()
    rows = [*train, *evaluation, *test]
    assert len(rows) >= 128
    assert {example.label for example in rows} == set(ANSWERS)


@pytest.mark.skipif(not PUBMEDQA.is_file(), reason="../shared/data/pubmedqa is not there")
def test_pubmedqas_official_split() -> None:
    settings = _pubmedqa(PUBMEDQA, train_examples=450, eval_examples=50, test_examples=500)
    train, evaluation, test = load_examples(settings).examples.values()
    official = set(json.loads(PUBMEDQA.with_name("test_ground_truth.json").read_text(encoding="utf-8")))
    assert {example.row_id for example in test} == official
    assert (len(train), len(evaluation), len(test)) == (450, 50, 500)
    assert len({example.row_id for split in (train, evaluation, test) for example in split}) == 1000
    with pytest.raises(DatasetError, match="train_examples must be at most 450"):
        load_examples(_pubmedqa(PUBMEDQA, train_examples=451))
