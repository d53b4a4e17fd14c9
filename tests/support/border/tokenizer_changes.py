"""Changes of the good model's tokenizer and of the rows, from which the tables of hostile tokenizers are made."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.made_up_studies import write_study_file

Change = Callable[[Path], None]
SPECIAL = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def plan(*changes: Change, **study: Any) -> Callable[[Path, Path], list[str]]:
    """Returns a maker that copies the good model, changes its tokenizer, and plans a study of it."""

    def make(folder: Path, model: Path) -> list[str]:
        copy = folder / "model"
        copy.mkdir()
        for file in model.iterdir():
            if file.suffix == ".safetensors":
                os.link(file, copy / file.name)
            else:
                shutil.copyfile(file, copy / file.name)
        file = write_study_file(folder, copy, **study)
        for change in changes:
            change(copy)
        return ["plan", str(file)]

    return make


def values_in(name: str, *path: str, **values: Any) -> Change:
    """Replaces values in a JSON file of the model's, in the mapping at `path`."""

    def change(model: Path) -> None:
        whole = json.loads((model / name).read_text())
        place = whole
        for key in path:
            place = place[key]
        place |= values
        (model / name).write_text(json.dumps(whole))

    return change


def tokenizer(*path: str, **values: Any) -> Change:
    return values_in("tokenizer.json", *path, **values)


def named(**values: Any) -> Change:
    return values_in("tokenizer_config.json", **values)


def content(name: str, value: bytes | str) -> Change:
    return lambda model: write(model / name, value.encode() if isinstance(value, str) else value)


def write(path: Path, value: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(value)


def without(*names: str) -> Change:
    return lambda model: [(model / name).unlink(missing_ok=True) for name in names] and None  # type: ignore[func-returns-value]


def special_file(name: str, target: str = "") -> Change:
    """A named pipe in the file's place, or a link to `target`."""

    def change(model: Path) -> None:
        (model / name).unlink(missing_ok=True)
        os.symlink(target, model / name) if target else os.mkfifo(model / name)

    return change


def added(*tokens: tuple[int, str]) -> Change:
    def change(model: Path) -> None:
        before = json.loads((model / "tokenizer.json").read_text())["added_tokens"]
        more = [{"id": number, "content": text, **SPECIAL} for number, text in tokens]
        tokenizer(added_tokens=[*before, *more])(model)

    return change


def vocabulary(**tokens: Any) -> Change:
    return tokenizer("model", "vocab", **tokens)


def differing_rows(form: str) -> Change:
    lines = [json.dumps({"prompt": form.format(n), "completion": " yes"}) for n in range(40)]
    return lambda model: write(model.parent / "rows.jsonl", "\n".join(lines).encode())


def one_row(prompt: str) -> Change:
    """One row more, and no other like it: what it leaves at work in the process ends soon."""

    def change(model: Path) -> None:
        with (model.parent / "rows.jsonl").open("a") as file:
            file.write(json.dumps({"prompt": prompt, "completion": " yes"}) + "\n")

    return change


def grow(text: str, by: str, times: int) -> dict[str, Any]:
    step = {"type": "Replace", "pattern": {"String": text}, "content": by}
    return {"type": "Sequence", "normalizers": [step] * times}


def split(regex: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def posted(count: int) -> dict[str, Any]:
    single = [{"SpecialToken": {"id": "<s>", "type_id": 0}}] * count + [{"Sequence": {"id": "A", "type_id": 0}}]
    return {
        "type": "TemplateProcessing", "single": single, "pair": [*single, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    }  # fmt: skip


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
NORMAL_BYTES = {"type": "ByteLevel"}
DOUBLE = {"type": "Replace", "pattern": {"String": "e"}, "content": "ee"}
EVERYWHERE = {"type": "Replace", "pattern": {"Regex": ""}, "content": "x" * 200}
REMOVE = {"type": "Replace", "pattern": {"Regex": "[\\s\\S]"}, "content": ""}
LETTERS = {chr(code): code - 30 for code in range(32, 127)}
DROPOUT = {
    "type": "BPE", "dropout": 0.5, "unk_token": None, "vocab": {**LETTERS, "es": 96}, "merges": [["e", "s"]],
    "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
    "ignore_merges": False,
}  # fmt: skip


def several(key: str, step: dict[str, Any], times: int) -> dict[str, Any]:
    return {"type": "Sequence", key: [step] * times}


def backtracking(regex: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": regex}, "content": ""}


def unknown(model: Path) -> None:
    """Lets `<unk>` stand for unknown letters, in place of the question mark."""
    tokenizer("model", vocab={**LETTERS, "<s>": 0, "</s>": 1, "<unk>": 29}, unk_token="<unk>")(model)


def empty_vocabulary(model: Path) -> None:
    values = {**DROPOUT, "dropout": None, "vocab": {}, "merges": []}
    tokenizer(model=values, added_tokens=[])(model)
    named(bos_token=None, eos_token=None, unk_token=None)(model)
    values_in("config.json", bos_token_id=None, eos_token_id=None)(model)
    (model / "generation_config.json").unlink(missing_ok=True)


def touched(path: Path) -> Path:
    path.touch()
    return path
