"""Faults of rows: each kind once, with how many rows have it and the first ten; null and NaN are no missing quotes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.trainables.raw_rows import write
from trainables.dataset.files import DatasetError, RowFault
from trainables.dataset.reading.row_faults import checked, text_faults, type_name
from trainables.dataset.sources import load_examples
from trainables.settings import DatasetSettings

GOOD = {"prompt": "p", "completion": "c"}


def _refusal(folder: Path, text: str) -> list[str]:
    with pytest.raises(DatasetError) as caught:
        load_examples(DatasetSettings("mine", train_file=write(folder / "a.jsonl", text)))
    return str(caught.value).splitlines()


@pytest.mark.parametrize(("value", "words"), [("null", "it is null"), ("NaN", "it is NaN")])
def test_a_missing_value_is_not_a_missing_quote(tmp_path: Path, value: str, words: str) -> None:
    rows = [json.dumps(GOOD) if n % 3 else f'{{"prompt": "p", "completion": {value}}}' for n in range(90)]
    (said,) = _refusal(tmp_path, "\n".join(rows))
    assert f"rows 1, 4, 7, 10, 13, 16, 19, 22, 25, 28 and 20 more: `completion` must be text; {words}." in said
    assert "or remove the row" in said
    assert "quotes" not in said


def test_each_kind_is_said_once_though_the_keys_differ(tmp_path: Path) -> None:
    rows = [json.dumps({"prompt": "p", f"answer_{n}": n}) for n in range(5)]
    said = _refusal(tmp_path, "\n".join([*rows, "5", '"text"', "{", '{"prompt": 1, "completion": []}']))
    assert len(said) == 6
    assert (
        "rows 1, 2, 3, 4, 5: every row needs `completion`; it is not there (row 1: the keys are: prompt, answer_0)"
        in said[0]
    )
    assert ["it is a number (5)" in said[1], "it is a text" in said[2], "not JSON" in said[3]] == [True] * 3
    assert "`completion` must be text; it is a list ([]). Join it to one text." in said[5]


def test_a_key_that_stands_twice_is_not_taken_silently(tmp_path: Path) -> None:
    said = _refusal(tmp_path, '{"prompt": "a", "prompt": "b", "completion": "c"}')
    assert "a row may have each key once; `prompt` is there twice" in said[0]
    fine = '{"prompt": "the \\"prompt\\" and \\"completion\\"", "completion": "c", "x": {"prompt": 1}}\n' * 20
    assert load_examples(DatasetSettings("mine", train_file=write(tmp_path / "b.jsonl", fine), group="none"))


def test_at_most_ten_kinds_are_said() -> None:
    rows = [(str(n), RowFault(f"rule {n}", "f", "r")) for n in range(14)]
    with pytest.raises(DatasetError, match=r"\.\.\. and 4 more kinds of fault") as caught:
        checked("a", rows, lambda row: [], lambda where, row: row)
    assert len(str(caught.value).splitlines()) == 11


def test_values_have_their_json_names() -> None:
    values = [None, True, 1, 1.5, "a", [], {}]
    names = ["null", "true or false", "a number", "a number", "a text", "a list", "an object"]
    assert list(map(type_name, values)) == names
    assert [len(text_faults(value, ("prompt",))) for value in values] == [1] * 7
