"""Reading JSON Lines of one's own: what becomes of good rows, and what is said of bad ones."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.trainables.raw_rows import prompt_rows, write
from trainables.dataset.files import DatasetError
from trainables.dataset.sources import load_examples
from trainables.settings import DatasetSettings

GOOD = '{"prompt": "p", "completion": "c"}\n'


def test_own_files_are_taken_whole_in_their_order(tmp_path: Path) -> None:
    asked = DatasetSettings(
        "mine",
        train_file=prompt_rows(tmp_path / "a.jsonl", 7),
        eval_file=prompt_rows(tmp_path / "b.jsonl", 3),
        test_file=prompt_rows(tmp_path / "c.jsonl", 2),
    )
    train, evaluation, test = load_examples(asked).examples.values()
    assert sorted(example.row_id for example in train) == [f"a.jsonl:{i}" for i in range(1, 8)]
    assert [example.completion for example in evaluation] == ["answer 0", "answer 1", "answer 2"]
    assert [example.row_id for example in test] == ["c.jsonl:1", "c.jsonl:2"]


def test_own_rows_are_held_out_without_an_evaluation_file(tmp_path: Path) -> None:
    rows = [json.dumps({"prompt": f"p{i // 2}", "completion": str(i)}) for i in range(20)]
    asked = DatasetSettings("mine", train_file=write(tmp_path / "a.jsonl", "\n".join(rows)))
    train, evaluation, test = load_examples(asked).examples.values()
    assert len(evaluation) == 4  # a tenth is one prompt's two rows, and no prompt fills a split
    assert len(train) == 16
    assert list(test) == []
    assert not {example.prompt for example in train} & {example.prompt for example in evaluation}


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_byte_order_mark_line_ends_and_odd_spaces(tmp_path: Path, mark: bytes, separator: str) -> None:
    row = json.dumps({"prompt": "a\u2028b", "completion": "\x85é"}, ensure_ascii=False)
    path = tmp_path / "a.jsonl"
    path.write_bytes(mark + (separator.join([row, row]) + separator).encode())
    train, evaluation, _ = load_examples(
        DatasetSettings("mine", train_file=str(path), eval_file=str(path))
    ).examples.values()
    assert [example.prompt for example in train] == ["a\u2028b"] * 2
    assert [example.completion for example in evaluation] == ["\x85é"] * 2


def test_own_rows_may_be_one_json_list(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", [{"prompt": "p", "completion": "c"}] * 3)
    assert len(load_examples(DatasetSettings("mine", train_file=path, eval_file=path)).train.examples) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            GOOD * 16 + '{"completion": "c"}',
            r"row 17: every row needs `prompt`; it is not there \(the keys are: completion\)\. Add",
        ),
        (
            GOOD + '{"prompt": 5, "completion": "c"}',
            r"row 2: `prompt` must be text; it is a number \(5\)\. Write it as",
        ),
        (GOOD + '{"prompt": "p", "completion": null}', r"row 2: `completion` must be text; it is null"),
        (GOOD + '{"prompt": "p", "completion": true}', r"row 2: `completion` must be text; it is true or false"),
        (GOOD + "5", r"row 2: every row must be a JSON object; it is a number \(5\)"),
        (GOOD + "{prompt}", r"row 2: every line must be one JSON object; it is not JSON \(.*\)\. Correct the line"),
        (GOOD + '{"prompt": "\\ud800", "completion": "c"}', r"row 2: `prompt` must be valid Unicode"),
        ("[1, 2", r"dataset\.train_file must hold JSON; .* Correct the file"),
        ("[" * 100_000, r"dataset\.train_file must hold JSON"),
        ("", r"must hold at least one row; .* holds none\. Add rows"),
        ('{"a": 1}\n' * 40, r"rows 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 30 more: every row needs `prompt`"),
        ('{"a": 1}\n' * 40, r"10 and 30 more: every row needs `completion`"),
    ],
)
def test_malformed_rows_of_ones_own(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load_examples(DatasetSettings("mine", train_file=write(tmp_path / "a.jsonl", text)))


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 900), st.binary(max_size=3)), max_size=4), st.integers(0, 900))
def test_damaged_files_are_read_or_refused_in_words(edits: list[tuple[int, bytes]], end: int) -> None:
    content = (GOOD * 30).encode()
    for at, more in edits:
        content = content[:at] + more + content[at + 1 :]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        path.write_bytes(content[: end or None])
        try:
            splits = load_examples(DatasetSettings("mine", train_file=str(path), group="none"))
        except DatasetError as error:
            refused = str(error)
        else:
            rows = sum(len(draw.examples) + draw.empty + draw.left_out for draw in splits.by_name.values())
            lines = [line for line in path.read_bytes().replace(b"\r", b"\n").split(b"\n") if line.strip()]
            assert rows == len(lines)
            return
    assert all(len(line) < 500 for line in refused.splitlines())
    assert len(refused.splitlines()) <= 11
