"""Reading PubMedQA, CoNaLa and JSON Lines: what becomes of good rows, and what is said of bad ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.places import SHARED
from trainables.dataset import files, sources
from trainables.dataset.files import DatasetError
from trainables.dataset.sources import ANSWERS, SAMPLE_FILE, load_examples
from trainables.settings import DatasetSettings

PUBMEDQA = SHARED / "data" / "pubmedqa" / "ori_pqal.json"
CONALA = SHARED / "data" / "conala" / "mconala_train.json"


def _record(decision: str = "yes", **values: Any) -> dict[str, Any]:
    return {"QUESTION": "Is it?", "CONTEXTS": ["One.", "Two."], "LONG_ANSWER": "It is.", "final_decision": decision} | (
        values
    )


def _write(path: Path, value: Any) -> str:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return str(path)


def _jsonl(path: Path, n: int, word: str = "row") -> str:
    rows = [json.dumps({"prompt": f"{word} {i}", "completion": f"answer {i}"}) for i in range(n)]
    return _write(path, "\n".join(rows))


def _pubmedqa(path: Path, **values: Any) -> DatasetSettings:
    return DatasetSettings("pubmedqa", source=str(path), **values)


# Good rows


def test_pubmedqa_completion_starts_with_the_decision(tmp_path: Path) -> None:
    _write(tmp_path / "a.json", {str(i): _record(ANSWERS[i % 3]) for i in range(10)})
    train, evaluation, test = load_examples(_pubmedqa(tmp_path / "a.json"))
    assert (len(train), len(evaluation), len(test)) == (8, 1, 1)
    for example in train:
        assert example.prompt == "Context: One.\nTwo.\nQuestion: Is it?\nAnswer:"
        assert example.completion == f" {example.label}. It is."
        assert example.label == ANSWERS[int(example.row_id) % 3]


def test_official_test_ids_never_enter_training(tmp_path: Path) -> None:
    _write(tmp_path / "a.json", {str(i): _record() for i in range(30)})
    _write(tmp_path / "test_ground_truth.json", {str(i): "yes" for i in range(10)} | {"absent": "no"})
    train, evaluation, test = load_examples(_pubmedqa(tmp_path / "a.json"))
    assert {example.row_id for example in test} == {str(i) for i in range(10)}
    assert (len(train), len(evaluation)) == (18, 2)
    assert len(load_examples(_pubmedqa(tmp_path / "a.json", test_examples=4))[2]) == 4


def test_stackoverflow_prefers_the_rewritten_intent_and_keeps_questions_together(tmp_path: Path) -> None:
    def row(i: int) -> dict[str, Any]:
        rewritten = None if i % 2 else f"clear {i}"
        return {"intent": "raw", "rewritten_intent": rewritten, "snippet": f"x = {i}", "question_id": i // 3}

    rows = [row(i) for i in range(30)]
    settings = DatasetSettings("stackoverflow", source=_write(tmp_path / "c.json", rows))
    splits = load_examples(settings)
    groups = [{example.group for example in split} for split in splits]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    for example in (example for split in splits for example in split):
        i = int(example.completion.removeprefix("x = "))
        assert example.prompt == f"Question: {'raw' if i % 2 else f'clear {i}'}\nCode:\n"
        assert (example.context, example.label, example.group) == ("", None, str(i // 3))


def test_own_files_are_taken_whole_in_their_order(tmp_path: Path) -> None:
    settings = DatasetSettings(
        "mine",
        train_file=_jsonl(tmp_path / "a.jsonl", 7),
        eval_file=_jsonl(tmp_path / "b.jsonl", 3),
        test_file=_jsonl(tmp_path / "c.jsonl", 2),
    )
    train, evaluation, test = load_examples(settings)
    assert sorted(example.row_id for example in train) == [f"a.jsonl:{i}" for i in range(1, 8)]
    assert [example.completion for example in evaluation] == ["answer 0", "answer 1", "answer 2"]
    assert [example.row_id for example in test] == ["c.jsonl:1", "c.jsonl:2"]


def test_own_rows_are_held_out_without_an_evaluation_file(tmp_path: Path) -> None:
    rows = [json.dumps({"prompt": f"p{i // 2}", "completion": str(i)}) for i in range(20)]
    settings = DatasetSettings("mine", train_file=_write(tmp_path / "a.jsonl", "\n".join(rows)))
    train, evaluation, test = load_examples(settings)
    assert len(evaluation) == 2
    assert test == []
    assert not {example.prompt for example in train} & {example.prompt for example in evaluation}


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_byte_order_mark_line_ends_and_odd_spaces(tmp_path: Path, mark: bytes, separator: str) -> None:
    row = json.dumps({"prompt": "a\u2028b", "completion": "\x85é"}, ensure_ascii=False)
    path = tmp_path / "a.jsonl"
    path.write_bytes(mark + (separator.join([row, row]) + separator).encode())
    train, evaluation, _ = load_examples(DatasetSettings("mine", train_file=str(path), eval_file=str(path)))
    assert [example.prompt for example in train] == ["a\u2028b"] * 2
    assert [example.completion for example in evaluation] == ["\x85é"] * 2


def test_own_rows_may_be_one_json_list(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.json", [{"prompt": "p", "completion": "c"}] * 3)
    assert len(load_examples(DatasetSettings("mine", train_file=path, eval_file=path))[0]) == 3


# Bad rows

GOOD = '{"prompt": "p", "completion": "c"}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD * 16 + '{"completion": "c"}', r"row 17: every row needs `prompt`; this one's keys are: completion\. Add"),
        (GOOD + '{"prompt": 5, "completion": "c"}', r"row 2: `prompt` must be text; it is 5\. Put it in quotes"),
        (GOOD + '{"prompt": "p", "completion": null}', r"row 2: `completion` must be text; it is null"),
        (GOOD + '{"prompt": "p", "completion": true}', r"row 2: `completion` must be text; it is true"),
        (GOOD + "5", r"row 2: every row must be a JSON object; this one is 5"),
        (GOOD + "{prompt}", r"row 2: every line must be one JSON object; .* Correct the line"),
        (GOOD + '{"prompt": "\\ud800", "completion": "c"}', r"row 2: `prompt` must be valid Unicode"),
        ("[1, 2", r"dataset\.train_file must hold JSON; .* Correct the file"),
        ("[" * 100_000, r"dataset\.train_file must hold JSON"),
        ("", r"must hold at least one row; .* holds none\. Add rows"),
        ('{"a": 1}\n' * 40, r"\.\.\. and 70 more faults"),
    ],
)
def test_malformed_rows_of_ones_own(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load_examples(DatasetSettings("mine", train_file=_write(tmp_path / "a.jsonl", text)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([_record()], r"dataset\.source must hold one JSON object, id to question; .* does not\. Give a file like"),
        ({"7": _record("perhaps")}, r'row 7: `final_decision` must be one of yes, no, maybe; it is "perhaps"'),
        ({"7": _record(CONTEXTS="One.")}, r'row 7: `CONTEXTS` must be a list of texts; it is "One\."'),
        ({"7": {"QUESTION": "q"}}, r"row 7: every row needs `LONG_ANSWER`"),
        ({"7": 1}, r"row 7: every row must be a JSON object; this one is 1"),
        ({}, "must hold at least one row"),
        ({"7": _record()}, r"training split must hold at least one row|must be at most 0"),
        ("{", r"dataset\.source must hold JSON"),
    ],
)
def test_malformed_pubmedqa(tmp_path: Path, value: Any, message: str) -> None:
    _write(tmp_path / "a.json", value)
    with pytest.raises(DatasetError, match=message):
        load_examples(_pubmedqa(tmp_path / "a.json"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"intent": "i", "question_id": 1}, "row 1: every row needs `snippet`"),
        ({"intent": "i", "snippet": "s"}, "row 1: `question_id` must be a number or a text; it is null"),
        ({"intent": "i", "snippet": "s", "question_id": 1, "rewritten_intent": 3}, "`rewritten_intent` must be text"),
    ],
)
def test_malformed_conala(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load_examples(DatasetSettings("stackoverflow", source=_write(tmp_path / "c.json", [row])))


def test_settings_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"must be pubmedqa or stackoverflow where .* it is 'mine'\. Choose"):
        load_examples(DatasetSettings("mine"))
    with pytest.raises(DatasetError, match=r"must name a file that is there; .*a\.jsonl is not\. Check the path"):
        load_examples(DatasetSettings("mine", train_file=str(tmp_path / "a.jsonl")))
    with pytest.raises(DatasetError, match=r"must name a file that is there; .*b\.json is not"):
        load_examples(DatasetSettings("pubmedqa", source="data/b.json"))
    with pytest.raises(DatasetError, match="must name a readable file"):
        load_examples(DatasetSettings("pubmedqa", source=str(tmp_path)))
    with pytest.raises(DatasetError, match="`sample` for pubmedqa only"):
        load_examples(DatasetSettings("stackoverflow", source="sample"))
    with pytest.raises(DatasetError, match=r"test_examples needs a dataset\.test_file; it is 5"):
        load_examples(DatasetSettings("mine", train_file=_jsonl(tmp_path / "a.jsonl", 9), test_examples=5))
    (tmp_path / "c.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DatasetError, match=r"must be UTF-8; .* at byte 0\. Save it as UTF-8"):
        load_examples(DatasetSettings("mine", train_file=str(tmp_path / "c.jsonl")))


# The hub, without a network


def _fake_hub(monkeypatch: pytest.MonkeyPatch, load: Any) -> SimpleNamespace:
    """Puts a client in place whose probe succeeds and whose `load_dataset` is `load`."""
    fake = SimpleNamespace(load_dataset=load, config=SimpleNamespace(HF_HUB_OFFLINE=False))
    monkeypatch.setitem(sys.modules, "datasets", fake)
    monkeypatch.setattr("huggingface_hub.dataset_info", lambda *_, **__: None)
    return fake


def test_pubmedqa_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"pubid": i, "question": "Is it?", "context": {"contexts": ["One.", "Two."]}, "long_answer": "It is.",
         "final_decision": "no"}
        for i in range(10)
    ]  # fmt: skip
    asked = []
    _fake_hub(monkeypatch, lambda *names: asked.append(names) or {"train": rows})
    train, _, test = load_examples(DatasetSettings("pubmedqa", source="qiaojin/PubMedQA"))
    assert asked == [("qiaojin/PubMedQA", "pqa_labeled")]
    assert train[0].prompt == "Context: One.\nTwo.\nQuestion: Is it?\nAnswer:"
    assert train[0].completion == " no. It is."
    assert len(test) == 1


def test_conala_from_the_hub_falls_back_to_its_parquet_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(hub_id: str, *configuration: str, **options: str) -> dict[str, Any]:
        if configuration:
            raise RuntimeError("Dataset scripts are no longer supported, but found conala.py")
        assert options == {"data_dir": "curated", "revision": "refs/convert/parquet"}
        return {
            split: [{"intent": "i", "rewritten_intent": None, "snippet": str(i), "question_id": i} for i in ids]
            for split, ids in (("train", range(20)), ("test", range(20, 25)))
        }

    _fake_hub(monkeypatch, load)
    train, evaluation, test = load_examples(DatasetSettings("stackoverflow", source="neulab/conala"))
    assert (len(train), len(evaluation)) == (18, 2)
    assert {example.group for example in test} == {str(i) for i in range(20, 25)}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ConnectionError("Couldn't reach it"), r"must be reachable; .*Couldn't reach it.*give the file's path instead"),
        (FileNotFoundError("Dataset 'a/b' is a gated dataset on the Hub."), r"is gated\. Ask for access .*HF_TOKEN"),
        (FileNotFoundError("Dataset 'a/b' doesn't exist"), r"a file, or a dataset on the hub .*Check its spelling"),
        (ValueError("BuilderConfig 'pqa_labeled' not found"), "pqa_labeled"),
    ],
)
def test_the_hubs_refusals(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    def load(*_: str) -> None:
        raise error

    _fake_hub(monkeypatch, load)
    with pytest.raises(DatasetError, match=message):
        load_examples(DatasetSettings("pubmedqa", source="a/b"))


def test_without_a_network_only_the_cache_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("Name or service not known")

    seen = []
    fake = _fake_hub(monkeypatch, lambda *_: seen.append(fake.config.HF_HUB_OFFLINE) or {"train": []})
    monkeypatch.setattr("huggingface_hub.dataset_info", unreachable)
    assert files.hub_rows("a/b", "c") == {"train": []}
    assert seen == [True]
    assert fake.config.HF_HUB_OFFLINE is False


# Real data


@pytest.mark.skipif(not SAMPLE_FILE.is_file(), reason="the sample is not there")
def test_the_shipped_sample() -> None:
    train, evaluation, test = load_examples(DatasetSettings("pubmedqa", source="sample"))
    rows = [*train, *evaluation, *test]
    assert len(rows) >= 128
    assert {example.label for example in rows} == set(ANSWERS)


@pytest.mark.skipif(not PUBMEDQA.is_file(), reason="../shared/data/pubmedqa is not there")
def test_pubmedqas_official_split() -> None:
    settings = _pubmedqa(PUBMEDQA, train_examples=450, eval_examples=50, test_examples=500)
    train, evaluation, test = load_examples(settings)
    official = set(json.loads(PUBMEDQA.with_name("test_ground_truth.json").read_text(encoding="utf-8")))
    assert {example.row_id for example in test} == official
    assert (len(train), len(evaluation), len(test)) == (450, 50, 500)
    assert len({example.row_id for split in (train, evaluation, test) for example in split}) == 1000
    with pytest.raises(DatasetError, match="train_examples must be at most 450"):
        load_examples(_pubmedqa(PUBMEDQA, train_examples=451))


@pytest.mark.skipif(not CONALA.is_file(), reason="../shared/data/conala is not there")
def test_conalas_questions_stand_in_one_split() -> None:
    splits = load_examples(DatasetSettings("stackoverflow", source=str(CONALA)))
    groups = [{example.group for example in split} for split in splits]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    assert 2350 < sum(map(len, splits)) <= 2379


def test_named_sources_are_the_documented_ones() -> None:
    assert set(sources.NAMED) == {"pubmedqa", "stackoverflow"}
