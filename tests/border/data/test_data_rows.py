"""Rows that are wrong, each kind said once with how many rows have it; and rows that are strange, yet right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.border.hostile import Hostile, table
from tests.support.made_up_studies import write_study_file

GOOD = b'{"prompt": "Is 1 even?", "completion": " no"}'
ROWS = b"".join(f'{{"prompt": "Is {n} even?", "completion": " {n % 2}"}}\n'.encode() for n in range(40))


def plan_data(write: Callable[[Path], object], **dataset: Any) -> Callable[[Path, Path], list[str]]:
    """Returns a maker that writes `rows.jsonl` so and plans a study of it; `dataset` replaces keys of that section."""

    def make(folder: Path, model: Path) -> list[str]:
        section = {"name": "mine", "train_file": "rows.jsonl", "max_tokens": 64, **dataset}
        study = write_study_file(
            folder, model, dataset={key: value for key, value in section.items() if value is not None}
        )
        (folder / "rows.jsonl").unlink()
        write(folder / "rows.jsonl")
        return ["plan", str(study)]

    return make


def rows(*lines: bytes | dict[str, Any], good: int = 40, **dataset: Any) -> Callable[[Path, Path], list[str]]:
    """Returns a maker of a file with `good` rows, and then these lines."""
    more = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    content = b"\n".join([*ROWS.splitlines()[:good], *more])
    return plan_data(lambda path: path.write_bytes(content), **dataset)


TEXT = "`completion` must be text; it is "


@table(
    Hostile(
        "null", rows({"prompt": "a", "completion": None}), ("row 41: " + TEXT + "null", "remove the row"), ("quotes",)
    ),
    Hostile(
        "NaN",
        rows(b'{"prompt": NaN, "completion": "b"}'),
        ("row 41: `prompt` must be text; it is NaN", "remove the row"),
        ("quotes",),
    ),
    Hostile(
        "300 nulls",
        rows(*[{"prompt": "a", "completion": None}] * 300),
        ("rows 41, 42, 43, 44, 45, 46, 47, 48, 49, 50 and 290 more",),
        most_lines=1,
    ),
    Hostile("Infinity", rows(b'{"prompt": "a", "completion": Infinity}'), (TEXT + "a number", "in quotes")),
    Hostile("a number", rows({"prompt": "a", "completion": 5}), (TEXT + "a number (5)", "Write it as text, in quotes")),
    Hostile("a boolean", rows({"prompt": "a", "completion": True}), (TEXT + "true or false (true)", "in quotes")),
    Hostile("a list", rows({"prompt": "a", "completion": ["b"]}), (TEXT + "a list", "Join it to one text")),
    Hostile(
        "an object",
        rows({"prompt": {"a": 1}, "completion": "b"}),
        ("`prompt` must be text; it is an object", "Join it"),
    ),
    Hostile(
        "no completion",
        rows({"prompt": "a", "x": 1}),
        ("every row needs `completion`", "the keys are: prompt, x", "Add `completion`"),
    ),
    Hostile(
        "other capitals",
        rows({"Prompt": "a", "Completion": "b"}),
        ("every row needs `prompt`", "the keys are: Prompt, Completion"),
    ),
    Hostile(
        "keys that differ",
        rows(*({"prompt": "a", f"k{n}": "b"} for n in range(60))),
        ("rows 41, 42", "and 50 more: every row needs `completion`"),
        most_lines=1,
    ),
    Hostile("a key of 5,000 letters", rows({"k" * 5000: 1}), ("every row needs `prompt`",)),
    Hostile("9,000 keys", rows({f"k{n}": n for n in range(9000)}), ("every row needs `prompt`",)),
    Hostile(
        "no object",
        rows(b"5", b'"a"', b"[1]", b"null"),
        ("every row must be a JSON object; it is a number (5)", "it is a text", "it is null"),
    ),
    Hostile(
        "a torn last line",
        rows(b'{"prompt": "a", "compl'),
        ("row 41: every line must be one JSON object; it is not JSON",),
    ),
    Hostile("two objects a line", rows(GOOD + GOOD), ("row 41: every line must be one JSON object", "Extra data")),
    Hostile("Python's quotes", rows(b"{'prompt': 'a', 'completion': 'b'}"), ("it is not JSON", "json.dumps")),
    Hostile("a comma too many", rows(b'{"prompt": "a", "completion": "b",}'), ("it is not JSON", "Correct the line")),
    Hostile(
        "a bare line end",
        rows(b'{"prompt": "a\nb", "completion": "c"}'),
        ("rows 41, 42: every line must be one JSON object",),
    ),
    Hostile("a zero byte", rows(b'{"prompt": "a\0", "completion": "c"}'), ("it is not JSON",)),
    Hostile(
        "Latin-1",
        rows('{"prompt": "é", "completion": "b"}'.encode("latin-1")),
        ("row 41: every line must be text in UTF-8", "iconv -f latin1"),
    ),
    Hostile("half a pair", rows(b'{"prompt": "\\ud800", "completion": "b"}'), ("must be valid Unicode", "surrogate")),
    Hostile(
        "a key twice",
        rows(b'{"prompt": "a", "completion": "b", "completion": "c"}'),
        ("each key once", "`completion` is there twice"),
    ),
    Hostile(
        "5,000 digits",
        rows(b'{"prompt": ' + b"9" * 5000 + b', "completion": "c"}'),
        ("row 41: every line must be one JSON object", "digits"),
    ),
    Hostile(
        "the first line is bad",
        rows(b"x", *ROWS.splitlines(), good=0),
        ("row 1: every line must be one JSON object",),
        most_lines=1,
    ),
    Hostile(
        "all lines are bad",
        rows(*[b"{x}"] * 500, good=0),
        ("and 490 more: every line must be one JSON object",),
        most_lines=1,
    ),
    Hostile(
        "colours for a terminal", rows({"prompt": 5, "\x1b[31mred": 1}), ("every row needs `completion`",), ("\x1b",)
    ),
)
def test_wrong_rows(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


def form(value: dict[str, Any], as_list: bool = False) -> Callable[[Path, Path], list[str]]:
    content = json.dumps([value] * 12, indent=1) if as_list else f"{json.dumps(value)}\n" * 12
    return plan_data(lambda path: path.write_text(content, encoding="utf-8"))


def whole(value: Any, indent: int | None = 1) -> Callable[[Path, Path], list[str]]:
    return plan_data(lambda path: path.write_text(json.dumps(value, indent=indent), encoding="utf-8"))


CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
SHARE = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
ALPACA = {"instruction": "i", "input": "", "output": "o"}
PAIRS = [{"prompt": f"p{n}", "completion": "c"} for n in range(12)]
LIKE = "it looks like "


@table(
    Hostile("messages", form(CHAT), (LIKE + "chat messages", "row['messages'][-1]['content']"), most_lines=1),
    Hostile("ShareGPT", form(SHARE, True), (LIKE + "ShareGPT's", "row['conversations']"), most_lines=1),
    Hostile("Alpaca", form(ALPACA, True), (LIKE + "Alpaca's", "row['instruction']"), most_lines=1),
    Hostile(
        "question, answer",
        form({"question": "q", "answer": "a"}),
        (LIKE + "question and answer", "row['answer']"),
        most_lines=1,
    ),
    Hostile("chosen, rejected", form({"chosen": "q", "rejected": "a"}), (LIKE + "preferences",), most_lines=1),
    Hostile("text", form({"text": "t"}), (LIKE + "plain texts", "'prompt': ''"), most_lines=1),
    Hostile(
        "wrapped",
        whole({"data": PAIRS}),
        ("one object, whose rows are the list under `data`", "['data']"),
        most_lines=1,
    ),
    Hostile("wrapped in a line", whole({"data": PAIRS}, None), ("the list under `data`", "['data']"), most_lines=1),
    Hostile(
        "columns",
        whole({"prompt": ["a"] * 9, "completion": ["b"] * 9}),
        ("a table column by column", "read_json"),
        most_lines=1,
    ),
    Hostile(
        "by id", whole({str(n): pair for n, pair in enumerate(PAIRS)}), ("rows by id", "jq -c '.[]'"), most_lines=1
    ),
    Hostile("one row, indented", whole(PAIRS[0]), ("one JSON object", "jq -c ."), most_lines=1),
    Hostile(
        "rows, indented",
        plan_data(lambda path: path.write_text("\n".join(json.dumps(pair, indent=2) for pair in PAIRS))),
        ("over several lines each", "jq -c ."),
        most_lines=1,
    ),
    Hostile(
        "two forms in one file",
        rows(CHAT, ALPACA, good=3),
        ("row 4: ", LIKE + "chat messages", "row 5: ", LIKE + "Alpaca's"),
        most_lines=2,
    ),
)
def test_rows_in_another_form_are_named_once(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)
