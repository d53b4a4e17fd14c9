"""Studies whose data, model or settings were changed after they began: `resume` says all of it before Ray starts."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from study.cli.main import main
from study.config.study_config import load_study
from study.errors import FAILED
from study.run.lifecycle import begin
from tests.border.hostile import Hostile, table
from tests.support.made_up_studies import write_study_file

ACCEPT = "--accept-changed-data"
TRAINING = {"epochs": 2.0, "max_steps": 12, "micro_batch_size": 2, "gradient_accumulation_steps": 1, "evaluations": 2}
Change = Callable[[Path], Any]  # gets the folder with `study`, `model` and `rows.jsonl`


@cache
def begun(model: Path) -> Path:
    """A folder with a study that has begun, its data and its model, all of which it names by absolute paths."""
    folder = model.parent / "begun"
    folder.mkdir()
    shutil.copytree(model, folder / "model")
    config = load_study(write_study_file(folder, folder / "model", training=TRAINING))
    begin(config, folder / "study", "python -m study run study.yaml", datetime(2026, 1, 31, tzinfo=UTC)).store.close()
    return folder


def changed(*changes: Change, options: tuple[str, ...] = ()) -> Callable[[Path, Path], list[str]]:
    """Returns a maker that copies the begun study, changes it and resumes it."""

    def make(folder: Path, model: Path) -> list[str]:
        template = begun(model)
        shutil.copytree(template, folder, dirs_exist_ok=True)
        for name in ("study.yaml", "basis.json"):
            file = folder / "study" / name
            file.write_text(file.read_text().replace(str(template), str(folder)))
        for change in changes:
            change(folder)
        return ["resume", str(folder / "study"), *options]

    return make


def setting(key: str, value: Any) -> Change:
    """Edits a value of the study's own file by hand."""

    def change(folder: Path) -> None:
        file = folder / "study" / "study.yaml"
        values = yaml.safe_load(file.read_text())
        section, _, name = key.partition(".")
        values[section][name] = value
        file.write_text(yaml.safe_dump(values))

    return change


def rows(edit: Callable[[list[str]], list[str]]) -> Change:
    """Edits the lines of the data file."""

    def change(folder: Path) -> None:
        file = folder / "rows.jsonl"
        file.write_text("".join(edit(file.read_text().splitlines(keepends=True))))

    return change


def inside(name: str, edit: Callable[[Any], Any]) -> Change:
    """Edits a JSON file below the folder."""

    def change(folder: Path) -> None:
        file = folder / name
        file.write_text(json.dumps(edit(json.loads(file.read_text()))))

    return change


def written(content: bytes) -> Change:
    """Puts these bytes in the place of basis.json."""
    return lambda folder: (folder / "study/basis.json").write_bytes(content)


def other_weights(folder: Path) -> None:
    """One bit of the weights."""
    file = folder / "model/model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def other_vocabulary(values: Any) -> Any:
    """Two letters change their ids."""
    vocabulary = values["model"]["vocab"]
    vocabulary["a"], vocabulary["e"] = vocabulary["e"], vocabulary["a"]
    return values


def pipe(folder: Path) -> None:
    """A named pipe in the place of basis.json, which nobody writes to."""
    (folder / "study/basis.json").unlink()
    os.mkfifo(folder / "study/basis.json")


def directory(folder: Path) -> None:
    """A folder in the place of basis.json."""
    (folder / "study/basis.json").unlink()
    (folder / "study/basis.json").mkdir()


APPENDED = rows(lambda lines: [*lines, '{"prompt": "Is 1000 even?", "completion": " yes"}\n'])
EDITED = rows(lambda lines: [lines[0].replace("even", "odd"), *lines[1:]])
DATA = ("dataset = ", "must give the rows that the study began with", "tokens", "Put them back, or continue", ACCEPT)


@table(
    Hostile("a row appended", changed(APPENDED), DATA),
    Hostile("a row edited", changed(EDITED), DATA),
    Hostile("one letter edited", changed(rows(lambda lines: [lines[0].replace("Is", "is"), *lines[1:]])), DATA),
    Hostile("an answer edited", changed(rows(lambda lines: [lines[0].replace("yes", "no"), *lines[1:]])), DATA),
    Hostile("a row removed", changed(rows(lambda lines: lines[:-1])), DATA),
    Hostile("a row doubled", changed(rows(lambda lines: [*lines, lines[-1]])), DATA),
    Hostile("a space at a prompt's end", changed(rows(lambda lines: [lines[0].replace("?", "? "), *lines[1:]])), DATA),
    Hostile(
        "another tokenizer",
        changed(inside("model/tokenizer.json", other_vocabulary)),
        (*DATA, "the tokenizer has changed, it was"),
    ),
    Hostile(
        "fewer tokens a row",
        changed(setting("dataset.max_tokens", 12)),
        ("dataset.max_tokens = 12: must be what the study began with, 64", "Set it back, or continue", ACCEPT),
    ),
    Hostile(
        "fewer rows",
        changed(setting("dataset.train_examples", 30)),
        ("dataset.train_examples = 30: must be what the study began with, 32", ACCEPT),
    ),
    Hostile(
        "another draw of the splits",
        changed(setting("dataset.seed", 1)),
        ("dataset.seed = 1: must be what the study began with, 0", ACCEPT),
    ),
    Hostile(
        "two settings of the data",
        changed(setting("dataset.seed", 1), setting("dataset.max_tokens", 32)),
        ("dataset.seed = 1", "dataset.max_tokens = 32"),
    ),
    Hostile(
        "another engine",
        changed(inside("study/basis.json", lambda values: values | {"states": values["states"] | {"engine": 1}})),
        ("engine version = ", "must be what the study began with, 1", "provenance.json", ACCEPT),
    ),
)
def test_changed_data_are_refused_with_the_way_out(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


MODEL = ("base_model.path = ", "Put the model back, or begin a study of its own: python -m study run")


@table(
    Hostile("one bit of the weights", changed(other_weights), (*MODEL, "weights that the study began with")),
    Hostile(
        "another epsilon of the norms",
        changed(inside("model/config.json", lambda values: values | {"rms_norm_eps": 1.0e-3})),
        (*MODEL, "configuration (config.json)"),
    ),
    Hostile("weights, and data accepted", changed(other_weights, APPENDED, options=(ACCEPT,)), MODEL, ("dataset",)),
    Hostile(
        "one quantization in place of two",
        changed(setting("base_model.double_quantization", False)),
        ("base_model.double_quantization = false: must be what the study began with, True",),
    ),
    *(
        Hostile(
            f"training.{name} edited",
            changed(setting(f"training.{name}", value), options=options),
            (f"training.{name} = ", "must be what the study began with", "Set it back, or begin a study of its own"),
            (ACCEPT,),
        )
        for options, (name, value) in zip(
            [(), (ACCEPT,)] * 5,
            {
                "epochs": 3.0, "max_steps": 24, "micro_batch_size": 1, "gradient_accumulation_steps": 2,
                "schedule": "linear", "warmup_ratio": 0.5, "weight_decay": 0.1, "max_grad_norm": 2.0,
                "gradient_checkpointing": False, "evaluations": 3,
            }.items(),
            strict=True,
        )
    ),
)  # fmt: skip
def test_what_no_study_survives_has_no_way_out(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


@table(
    Hostile(
        "data, weights and schedule",
        changed(EDITED, other_weights, setting("training.schedule", "constant")),
        (*DATA, *MODEL, "training.schedule = "),
    ),
)
def test_all_differences_are_said_at_once(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    first, *faults = check(hostile).splitlines()
    assert (first.endswith("left. Checking model and data."), len(faults)) == (True, 3)


BASIS = ("basis.json: must hold what the study wrote there when it began", "Restore it, or remove it")


@table(
    *(
        Hostile(name, changed(written(content)), BASIS)
        for name, content in {
            "nothing": b"",
            "random bytes": bytes(range(256)),
            "null": b"null",
            "a number": b"10",
            "a list": b"[1, 2]",
            "an empty object": b"{}",
            "torn": b'{"states": {"engine": 2, "datas',
            "parts of other kinds": b'{"states": [], "facts": {}, "since": "start", "changes": []}',
            "no since": b'{"states": {}, "facts": {}, "changes": []}',
            "changes of numbers": b'{"states": {}, "facts": {}, "since": "start", "changes": [7]}',
            "facts of numbers": b'{"states": {}, "facts": {"dataset": 7}, "since": "start", "changes": []}',
            "rows of text": b'{"states": {}, "facts": {"rows": {"train": "x"}}, "since": "start", "changes": []}',
            "a model of text": b'{"states": {}, "facts": {"base_model": "x"}, "since": "start", "changes": []}',
            "data of a list": b'{"states": {"dataset.fingerprint": [1]}, "facts": {}, "since": "start", "changes": []}',
            "another since": b'{"states": {}, "facts": {}, "since": "ever", "changes": []}',
            "changes that are a number": b'{"states": {}, "facts": {}, "since": "start", "changes": 7}',
            "deep": b'{"states": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            "two MiB": b" " * 2**21,
            "UTF-16": '{"states": {}}'.encode("utf-16"),
        }.items()
    ),
    Hostile("a named pipe", changed(pipe), (*BASIS, "named pipe")),
    Hostile("a folder", changed(directory), (*BASIS, "folder")),
)
def test_a_basis_that_is_none_is_refused(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


def moved_rows(folder: Path) -> None:
    """The data file lies elsewhere, as the study file says."""
    (folder / "rows.jsonl").rename(folder / "elsewhere.jsonl")
    setting("dataset.train_file", str(folder / "elsewhere.jsonl"))(folder)


def moved_model(folder: Path) -> None:
    """The model lies elsewhere, as the study file says."""
    (folder / "model").rename(folder / "elsewhere")
    setting("base_model.path", str(folder / "elsewhere"))(folder)


def other_line_ends(folder: Path) -> None:
    """The data file with the line ends of Windows."""
    file = folder / "rows.jsonl"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: None,
        lambda folder: (folder / "rows.jsonl").touch(),
        rows(lambda lines: list(lines)),
        rows(lambda lines: [line.replace('{"prompt"', '{  "prompt"') for line in lines]),
        other_line_ends,
        moved_rows,
        moved_model,
        inside("model/config.json", lambda values: {**values, "transformers_version": "9.9"}),
        setting("hardware.max_adapters_per_gpu", 1),
        setting("generation.max_new_tokens", 5),
        setting("confirm.seeds", [7]),
    ],
)
def test_what_comes_to_the_same_is_no_change(
    change: Change, tmp_path: Path, good_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The study continues, and Ray would be started."""
    monkeypatch.setattr("study.run.driver.run_study", lambda study, show, meanwhile: None)
    (tmp_path / "input").mkdir()
    assert main(changed(change)(tmp_path / "input", good_model)) == FAILED  # its trials are left
    said = capsys.readouterr()
    assert said.err == ""
    assert "4 trials did not run to an end" in said.out
