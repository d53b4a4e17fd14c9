"""Makers of damaged models for the tables of hostile inputs: the good model's copy, with a change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.made_up_studies import write_study_file
from tests.support.trainables.base_folders import write_safetensors

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab29\nsize 1044992\n"
Maker = Callable[[Path, Path], list[str]]
Header = dict[str, Any]


def plan_changed(change: Callable[[Path], None]) -> Maker:
    """Returns a maker that plans over the good model's copy, changed."""

    def make(folder: Path, model: Path) -> list[str]:
        shutil.copytree(model, folder / "model")
        change(folder / "model")
        return ["plan", str(write_study_file(folder, folder / "model"))]

    return make


def content(name: str, content: bytes) -> Maker:
    """Returns a maker in whose model one file holds these bytes."""
    return plan_changed(lambda base: (base / name).write_bytes(content) and None)


def split(file: Path) -> tuple[Header, bytes]:
    """A safetensors file's header and the bytes behind it."""
    whole = file.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    return json.loads(whole[8:end]), whole[end:]


def header(change: Callable[[Header], Any]) -> Maker:
    """Returns a maker in whose weights the header is changed, in place or by what `change` returns."""

    def damage(base: Path) -> None:
        values, data = split(base / WEIGHTS)
        write_safetensors(base / WEIGHTS, change(values) or values, data)

    return plan_changed(damage)


def tensors(change: Callable[[Header], Header]) -> Maker:
    """Returns a maker whose weights have the tensors, by name with dtype and shape, that `change` makes of the good."""

    def damage(base: Path) -> None:
        values, _ = split(base / WEIGHTS)
        values.pop("__metadata__", None)
        end, made = 0, {}
        for name, entry in change(values).items():
            count = 4 if entry["dtype"] in ("F32", "I32") else 1
            for size in entry["shape"]:
                count *= size
            made[name] = {**entry, "data_offsets": [end, end + count]}
            end += count
        write_safetensors(base / WEIGHTS, made, bytes(end))

    return plan_changed(damage)


def set_entry(**changes: Any) -> Maker:
    """Returns a maker in whose header the final norm's entry is changed."""
    return header(lambda values: values["model.norm.weight"].update(changes))


def index(value: Any, shards: bool = False) -> Maker:
    """Returns a maker whose weights lie in an index's files: the index holds `value`, as JSON or as bytes."""

    def damage(base: Path) -> None:
        (base / WEIGHTS).rename(base / ("model-1.safetensors" if shards else "unused"))
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        (base / INDEX).write_bytes(text)

    return plan_changed(damage)


def in_folder(file: str, make: Callable[[Path], Any]) -> Maker:
    """Returns a maker in whose model something else stands where a file was."""

    def damage(base: Path) -> None:
        (base / file).unlink(missing_ok=True)
        make(base / file)

    return plan_changed(damage)
