"""Adapters that a hand, a disk or a transfer has changed, and places where no export can be: refused in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.border.hostile import Hostile, table
from tests.border.stored.test_stored_records import directory, good
from tests.support.made_up_studies import write_study_file
from trainables.guarded_files import MIB

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
AGAIN = "Copy the study's directory again from where it ran"
NOT_MADE = "must be a folder that can be made; it cannot"


def exported(
    name: str = "", content: bytes = b"", to: str = "", merge: bool = False
) -> Callable[[Path, Path], list[str]]:
    """A maker of a study whose first trial has an adapter with that file replaced, and of the export of it."""

    def make(folder: Path, model: Path) -> list[str]:
        study = directory(folder / "study")
        adapter = study / str(good(1)["adapter"])
        adapter.mkdir(parents=True)
        (adapter / SETTINGS).write_text('{"r": 2}', encoding="utf-8")
        save_file({"lora_A": np.zeros((2, 2), np.float32)}, adapter / WEIGHTS)
        if name:
            (adapter / name).write_bytes(content)
        place = to or str(folder / "out")
        return ["export", str(study), "t001", "--to", place, *(["--merge"] if merge else [])]

    return make


@table(
    Hostile("settings of a list", exported(SETTINGS, b"[1]"), (SETTINGS, "an adapter's settings, an object", AGAIN)),
    Hostile("settings of no JSON", exported(SETTINGS, b'{"r": '), (SETTINGS, "an adapter's settings in JSON", AGAIN)),
    Hostile("empty settings", exported(SETTINGS, b""), (SETTINGS, "an adapter's settings in JSON", AGAIN)),
    Hostile("deep settings", exported(SETTINGS, b"[" * 10**5), (SETTINGS, "an adapter's settings in JSON", AGAIN)),
    Hostile("settings of 9 MiB", exported(SETTINGS, b" " * 9 * MIB), (SETTINGS, "settings in JSON", AGAIN)),
    Hostile("settings in UTF-16", exported(SETTINGS, "{}".encode("utf-16")), (SETTINGS, "in JSON", AGAIN)),
    Hostile("empty weights", exported(WEIGHTS, b""), (WEIGHTS, "must be a whole safetensors file", AGAIN)),
    Hostile("weights of letters", exported(WEIGHTS, b"x" * 20), (WEIGHTS, "a whole safetensors file", AGAIN)),
    Hostile("weights cut", exported(WEIGHTS, b"\x40\0\0\0\0\0\0\0{}"), (WEIGHTS, "truncated", AGAIN)),
    Hostile("weights cut, merged", exported(WEIGHTS, b"\x40\0\0\0\0\0\0\0{}", merge=True), (WEIGHTS, AGAIN)),
    Hostile(
        "weights as a pointer",
        exported(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
        (WEIGHTS, "a git-lfs pointer"),
    ),
)
def test_a_broken_adapter_is_not_exported(hostile: Hostile, check: Callable[[Hostile], str], tmp_path: Path) -> None:
    check(hostile)
    assert not (tmp_path / "input/out").exists()


@table(
    Hostile("where nobody may write", exported(to="/proc/x"), ("--to", NOT_MADE, "Name another one")),
    Hostile("where nobody may write, merged", exported(to="/proc/x", merge=True), ("--to", NOT_MADE)),
    Hostile("below a device", exported(to="/dev/null/x"), ("--to", NOT_MADE)),
    Hostile("a long name", exported(to="x" * 250), ("--to", NOT_MADE, "too long")),
)
def test_an_export_needs_a_place(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


def unreadable_search(folder: Path, model: Path) -> list[str]:
    """A study with a line that is no record beside a database that is none."""
    write_study_file(folder, model)
    (folder / "results.jsonl").write_text('{"study": "made-up", "trial_id": 7}\n', encoding="utf-8")
    (folder / "optuna.db").write_bytes(b"junk" * 100)
    return ["resume", str(folder)]


@table(
    Hostile(
        "beside a database that is none",
        unreadable_search,
        ("1 line of results.jsonl without a record that counts moved to results.torn", "not a database of SQLite"),
    )
)
def test_lines_that_are_moved_are_told_whatever_follows(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)
