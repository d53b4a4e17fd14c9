"""Recognises rows of other forms, and how to turn a file of them into rows of prompt and completion."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.dataset.reading.kinds import beside

READ = (
    "import json, sys; text = open(sys.argv[1], encoding='utf-8-sig').read(); "
    "rows = json.loads(text) if text.lstrip()[0] == '[' else map(json.loads, filter(str.strip, text.split(chr(10))))"
)
ALONE = "Rows need prompt and completion, which are all that is read here"


@dataclass(frozen=True)
class Form:
    """How rows are written: a name for messages, and Python's expressions of a `row`'s prompt and completion."""

    name: str
    prompt: str
    completion: str
    note: str = ""

    def remedy_for(self, path: Path) -> str:
        """Returns how to turn the file into rows of prompt and completion."""
        row = f"{{'prompt': {self.prompt}, 'completion': {self.completion}}}"
        code = f"{READ}; [print(json.dumps({row})) for row in rows]"
        return f"{ALONE}. Turn the file{self.note}: {_command(code, path)}."


@dataclass(frozen=True)
class Wrapped:
    """Rows in a list that lies under one key of an object."""

    key: str

    @property
    def name(self) -> str:
        """What it is, for messages."""
        return f"one object, whose rows are the list under `{self.key}`"

    def remedy_for(self, path: Path) -> str:
        """Returns how to write each row of the list on a line of its own."""
        rows = f"json.load(open(sys.argv[1], encoding='utf-8-sig'))['{self.key}']"
        code = f"import json, sys; [print(json.dumps(row)) for row in {rows}]"
        return f"Write each row on a line: {_command(code, path)}."


@dataclass(frozen=True)
class Columns:
    """A table written column by column: under each key all rows' values."""

    name: str = "a table column by column"

    def remedy_for(self, path: Path) -> str:
        """Returns how to write it row by row."""
        code = (
            "import sys, pandas; pandas.read_json(sys.argv[1]).to_json(sys.argv[2], "
            "orient='records', lines=True, force_ascii=False)"
        )
        return f'Write it row by row: `python -c "{code}" {shlex.quote(str(path))} {shlex.quote(str(beside(path)))}`.'


@dataclass(frozen=True)
class Objects:
    """JSON objects that lie over several lines each."""

    name: str = "JSON objects over several lines each"
    filter: str = "."  # of jq

    def remedy_for(self, path: Path) -> str:
        """Returns how to write each object on a line of its own."""
        command = f"jq -c {shlex.quote(self.filter)} {shlex.quote(str(path))} > {shlex.quote(str(beside(path)))}"
        return f"Write each row on a line: `{command}`."


BY_ID = Objects("one object of rows by id", ".[]")
AnyForm = Form | Wrapped | Columns | Objects

CONTENTS = "chr(10).join(one['{text}'] for one in row['{key}'][:-1])"
MESSAGES = Form(
    "chat messages", CONTENTS.format(text="content", key="messages"), "row['messages'][-1]['content']",
    " (without a chat template; the last message becomes the completion)",
)  # fmt: skip
SHAREGPT = Form(
    "ShareGPT's conversations", CONTENTS.format(text="value", key="conversations"), "row['conversations'][-1]['value']",
    " (without a chat template; the last turn becomes the completion)",
)  # fmt: skip
ALPACA = Form(
    "Alpaca's instruction, input, output",
    "chr(10).join(filter(None, [row['instruction'], row.get('input')]))",
    "row['output']",
)
PREFERENCES = Form("preferences, chosen and rejected", "row.get('prompt', '')", "row['chosen']", " (the chosen answer)")
TEXT = Form("plain texts", "''", "row['text']")
QUESTIONS = ("question", "query", "instruction", "input", "prompt", "problem", "source", "intent")
ANSWERS = ("answer", "response", "output", "completion", "solution", "target", "label", "snippet")


def form_of(row: Mapping[str, Any]) -> AnyForm | None:
    """Returns the form of a row that is not of prompt and completion; None where none is known."""
    if isinstance(row.get("messages"), list):
        return MESSAGES
    if isinstance(row.get("conversations"), list):
        return SHAREGPT
    if {"instruction", "output"} <= row.keys():
        return ALPACA
    if {"chosen", "rejected"} <= row.keys():
        return PREFERENCES
    return _wrapped(row) or _columns(row) or _pair(row) or (TEXT if isinstance(row.get("text"), str) else None)


def many_lines_form(text: str) -> AnyForm | None:
    """Returns the form of a text whose first JSON object lies over several lines; None where it is no JSON."""
    text = text.strip()
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    if end < len(text):
        return Objects()
    by_id = all(isinstance(one, dict) for one in value.values())
    return _wrapped(value) or _columns(value) or (BY_ID if value and by_id else Objects("one JSON object"))


def _wrapped(row: Mapping[str, Any]) -> Wrapped | None:
    lists = [key for key, value in row.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    return Wrapped(lists[0]) if len(lists) == 1 and lists[0].isidentifier() and lists[0].isascii() else None


def _columns(row: Mapping[str, Any]) -> Columns | None:
    both = [row.get(name) for name in ("prompt", "completion")]
    return Columns() if all(isinstance(value, (dict, list)) for value in both) else None


def _pair(row: Mapping[str, Any]) -> Form | None:
    """Two texts under other names, such as question and answer."""
    prompt, completion = (
        next((name for name in names if isinstance(row.get(name), str)), None) for names in (QUESTIONS, ANSWERS)
    )
    if prompt is None or completion is None or (prompt, completion) == ("prompt", "completion"):
        return None
    return Form(f"{prompt} and {completion}", f"row['{prompt}']", f"row['{completion}']")


def _command(code: str, path: Path) -> str:
    return f'`python -c "{code}" {shlex.quote(str(path))} > {shlex.quote(str(beside(path)))}`'
