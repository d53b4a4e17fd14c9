"""Rows of other forms: recognised, with a command that does turn the file into rows of prompt and completion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainables.dataset.reading.test_kinds import run_remedy
from trainables.dataset.files import DatasetError
from trainables.dataset.reading.forms import form_of, many_lines_form
from trainables.dataset.reading.kinds import beside
from trainables.dataset.sources import load_examples
from trainables.settings import DatasetSettings

TURNS = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SHARES = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
FORMS: dict[str, tuple[dict[str, Any], str, tuple[str, str]]] = {
    "messages": ({"messages": TURNS}, "chat messages", ("s\nq", "a")),
    "sharegpt": ({"id": "0", "conversations": SHARES}, "ShareGPT", ("q", "a")),
    "alpaca": ({"instruction": "i", "input": "x", "output": "o"}, "Alpaca", ("i\nx", "o")),
    "alpaca without input": ({"instruction": "i", "input": "", "output": "o"}, "Alpaca", ("i", "o")),
    "dolly": ({"instruction": "i", "context": "", "response": "r"}, "instruction and response", ("i", "r")),
    "question and answer": ({"question": "q", "answer": "a"}, "question and answer", ("q", "a")),
    "prompt and response": ({"prompt": "q", "response": "a"}, "prompt and response", ("q", "a")),
    "preferences": ({"prompt": "q", "chosen": "a", "rejected": "b"}, "preferences", ("q", "a")),
    "text": ({"text": "t"}, "plain texts", ("", "t")),
}


def _settings(path: Path) -> DatasetSettings:
    return DatasetSettings("mine", train_file=str(path), eval_file=str(path))


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("name", FORMS)
def test_the_remedy_turns_the_rows(tmp_path: Path, name: str, as_list: bool) -> None:
    row, words, (prompt, completion) = FORMS[name]
    path = tmp_path / "it's rows.jsonl"
    path.write_text(json.dumps([row] * 12) if as_list else f"{json.dumps(row)}\r\n\n" * 12, encoding="utf-8")
    with pytest.raises(DatasetError, match=f"it looks like {words}") as caught:
        load_examples(_settings(path))
    assert len(str(caught.value).splitlines()) == 1  # said once, not once a row
    assert "rows 1, 2" in str(caught.value) or "rows 1, 3" in str(caught.value)
    run_remedy(caught.value, tmp_path)
    rows = load_examples(_settings(beside(path))).train.examples
    assert {(one.prompt, one.completion) for one in rows} == {(prompt, completion)}
    assert len(rows) == 12


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["wrapped", "columns", "pandas"])
def test_one_object_that_holds_all_rows(tmp_path: Path, name: str, indent: int | None) -> None:
    rows = [{"prompt": f"p{n}", "completion": f"c{n}"} for n in range(12)]
    columns = {key: [row[key] for row in rows] for key in ("prompt", "completion")}
    values = {
        "wrapped": {"version": 1, "data": rows},
        "columns": columns,
        "pandas": {key: dict(enumerate(column)) for key, column in columns.items()},
    }
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(values[name], indent=indent), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"rows are the list under `data`|a table column by column") as caught:
        load_examples(_settings(path))
    assert len(str(caught.value).splitlines()) == 1
    run_remedy(caught.value, tmp_path)
    assert len(load_examples(_settings(tmp_path / "rows.jsonl")).train.examples) == 12


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{\n"prompt": "p",\n"completion": "c"\n}\n' * 3, "over several lines each"),
        ('{\n"prompt": "p",\n"completion": "c"\n}', "one JSON object"),
        ('{\n"1": {"prompt": "p"},\n"2": {"prompt": "q"}\n}', "rows by id"),
    ],
)
def test_objects_over_several_lines_are_said_once(tmp_path: Path, text: str, words: str) -> None:
    form = many_lines_form(text)
    assert form is not None
    assert words in form.name
    (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=r"Write each row on a line: `jq -c ") as caught:
        load_examples(_settings(tmp_path / "a.jsonl"))
    assert len(str(caught.value).splitlines()) == 1


def test_a_key_that_a_shell_would_obey_never_stands_in_a_command() -> None:
    assert form_of({"$(touch x)": [{"prompt": "p"}]}) is None
    assert form_of({"a`b": [{"prompt": "p"}]}) is None


def test_rows_that_lack_a_value_of_ours_are_no_other_form() -> None:
    assert form_of({"prompt": "p", "completion": None}) is None
    assert form_of({"prompt": "p"}) is None
