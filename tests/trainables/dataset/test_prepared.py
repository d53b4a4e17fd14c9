"""Prepared data: counts, lengths, fingerprint, and rows of real tokenizers and data. All comparisons are exact."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.places import ROOT, SHARED
from tests.support.trainables.letter_tokenizer import BOS, EOS, LetterTokenizer
from trainables.base_model.tokenizer import load_tokenizer
from trainables.dataset.files import DatasetError
from trainables.dataset.prepared import prepare_dataset
from trainables.settings import BaseModelSettings, DatasetSettings

PUBMEDQA = SHARED / "data" / "pubmedqa" / "ori_pqal.json"
CONALA = SHARED / "data" / "conala" / "mconala_train.json"
MODELS = ("stories15M", "stories260K")


def _files(folder: Path, **rows: list[tuple[str, str]]) -> DatasetSettings:
    files = {}
    for name, pairs in rows.items():
        lines = [json.dumps({"prompt": prompt, "completion": completion}) for prompt, completion in pairs]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        files[f"{name}_file"] = str(folder / f"{name}.jsonl")
    return DatasetSettings("mine", **files)  # type: ignore[arg-type]


def test_statistics_in_closed_form(tmp_path: Path) -> None:
    train = [("p" * n, "c") for n in range(1, 21)]  # lengths n + 3
    settings = _files(tmp_path, train=train, eval=[("p", "c"), ("p", "other")])
    data = prepare_dataset(settings, LetterTokenizer())
    assert data.statistics["train"] == {
        "rows": 20, "dropped": 0, "truncated": 0, "tokens": 270, "target_tokens": 40,
        "min_length": 4, "median_length": 13.5, "p95_length": 22, "max_length": 23, "overlap": 1,
        "left_out": 0, "unused": 0, "empty": 0, "duplicates": 0, "shared_prompts": 0,
    }  # fmt: skip
    assert data.statistics["eval"]["overlap"] == data.statistics["eval"]["shared_prompts"] == 1
    assert data.statistics["test"] == {
        "rows": 0, "dropped": 0, "truncated": 0, "tokens": 0, "target_tokens": 0,
        "min_length": None, "median_length": None, "p95_length": None, "max_length": None, "overlap": 0,
        "left_out": 0, "unused": 0, "empty": 0, "duplicates": 0, "shared_prompts": 0,
    }  # fmt: skip
    assert json.loads(json.dumps(data.statistics)) == data.statistics
    assert data.candidate_labels == ()
    assert all(row.answers is None for row in data.train.rows)


def test_truncated_and_dropped_rows_are_counted(tmp_path: Path) -> None:
    rows = {str(i): {"QUESTION": "q" * size, "CONTEXTS": ["c" * 9], "LONG_ANSWER": "a", "final_decision": "no"}
            for i, size in enumerate([1] * 30 + [80] * 30)}  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    settings = DatasetSettings("pubmedqa", source=str(tmp_path / "a.json"), max_tokens=48)
    data = prepare_dataset(settings, LetterTokenizer())
    splits = (data.train, data.eval, data.test)
    assert sum(split.dropped for split in splits) == 30
    assert sum(len(split.rows) for split in splits) == 30
    assert sum(split.truncated for split in splits) == sum(len(row.tokens) == 48 for s in splits for row in s.rows)
    assert data.candidate_labels == ("yes", "no", "maybe")
    answers = tuple(tuple(map(ord, text)) for text in (" yes", " no", " maybe"))
    assert {row.answers.tokens for row in (*data.eval.rows, *data.test.rows) if row.answers} == {answers}
    assert all(row.answers is None for row in data.train.rows)


def test_a_split_without_a_target_is_refused(tmp_path: Path) -> None:
    settings = _files(tmp_path, train=[("p", "c")], eval=[("p", "c")])
    with pytest.raises(DatasetError, match=r"max_tokens must leave the train split a target; at 1 .* none\. Raise"):
        prepare_dataset(dataclasses.replace(settings, max_tokens=1), LetterTokenizer())


def test_the_fingerprint_follows_tokens_splits_and_max_tokens(tmp_path: Path) -> None:
    rows = [(f"prompt {i}", f"completion {i}") for i in range(20)]
    settings = _files(tmp_path, train=rows, eval=rows[:3])

    def of(tokenizer: LetterTokenizer | None = None, **values: Any) -> str:
        return prepare_dataset(dataclasses.replace(settings, **values), tokenizer or LetterTokenizer()).fingerprint

    others = [of(max_tokens=511), of(seed=1), of(train_examples=19), of(eval_examples=2), of(LetterTokenizer(eos=3))]
    assert of() == of()
    assert len({of(), *others}) == 6
    _files(tmp_path, train=[*rows[:-1], ("prompt 19", "completion 20")])
    assert of() != of(max_tokens=511)
    assert of() not in others


def test_importing_needs_neither_torch_nor_a_hub_client() -> None:
    names = "('torch', 'transformers', 'datasets', 'huggingface_hub', 'ray')"
    code = f"import sys, trainables.dataset.prepared; sys.exit(any(name in sys.modules for name in {names}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.fixture(scope="module", params=MODELS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    folder = SHARED / "models" / request.param
    if not folder.is_dir():
        pytest.skip(f"../shared/models/{request.param} is not there")
    pytest.importorskip("transformers")
    return load_tokenizer(BaseModelSettings(str(folder)))


@pytest.mark.skipif(not PUBMEDQA.is_file(), reason="../shared/data/pubmedqa is not there")
@pytest.mark.parametrize("max_tokens", [256, 512])
def test_pubmedqa_rows(tokenizer: Any, max_tokens: int) -> None:
    settings = DatasetSettings(
        "pubmedqa", str(PUBMEDQA), max_tokens=max_tokens, train_examples=64, eval_examples=20, test_examples=20
    )
    data = prepare_dataset(settings, tokenizer)
    records = json.loads(PUBMEDQA.read_text(encoding="utf-8"))
    for row in (*data.train.rows, *data.eval.rows, *data.test.rows):
        record = records[row.row_id]
        prompt = f"Context: {chr(10).join(record['CONTEXTS'])}\nQuestion: {record['QUESTION']}\nAnswer:"
        answers = {label: [*_tokens(tokenizer, f"{prompt} {label}")] for label in data.candidate_labels}
        start = len(_tokens(tokenizer, prompt))  # no token of these tokenizers holds a colon and what follows it
        whole = [BOS, *_tokens(tokenizer, f"{prompt} {record['final_decision']}. {record['LONG_ANSWER']}"), EOS]
        assert len(row.tokens) <= max_tokens
        assert row.tokens[0] == BOS
        kept, target = list(row.tokens[row.target_start :]), whole[1 + start :]
        assert kept == target[: len(kept)]
        if len(whole) <= max_tokens:
            assert list(row.tokens) == whole
        elif len(kept) == len(target):
            assert len(row.tokens) == max_tokens
        question = f"\nQuestion: {record['QUESTION']}\nAnswer:"
        assert tokenizer.decode(row.tokens[: row.target_start]).endswith(question.lstrip())
        if row.answers is not None:
            assert row.answers.prompt_tokens == row.target_start
            assert row.answers.tokens == tuple(tuple(ids[start:]) for ids in answers.values())
            right = row.answers.tokens[data.candidate_labels.index(row.label or "")]
            assert tuple(kept[: len(right)]) == right
    assert all(row.answers for row in (*data.eval.rows, *data.test.rows))


def _tokens(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode([text], markup=True)[0].ids)


@pytest.mark.skipif(not CONALA.is_file(), reason="../shared/data/conala is not there")
def test_conala_rows_decode_to_question_and_code(tokenizer: Any) -> None:
    settings = DatasetSettings("stackoverflow", str(CONALA), train_examples=64, eval_examples=20, test_examples=20)
    data = prepare_dataset(settings, tokenizer)
    snippets = {row["snippet"].strip() for row in json.loads(CONALA.read_text(encoding="utf-8"))}
    for row in data.train.rows:
        assert tokenizer.decode(row.tokens[1 : row.target_start]).startswith("Question: ")
        assert row.tokens[-1] == EOS
        assert tokenizer.decode(row.tokens[row.target_start : -1]).strip() in snippets
