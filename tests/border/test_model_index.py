"""Indexes of weights that are none, and shards that are missing or of another kind: refused before anything is read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.border.hostile import Hostile, table
from tests.support.trainables.hostile_models import INDEX, POINTER, WEIGHTS, Maker, index, plan_changed

MAP = "must map the names of tensors to names of files"
BESIDE = "must be the name of a file beside the index"


def target(name: Any) -> Maker:
    return index({"weight_map": {"model.norm.weight": name}})


def two_shards(base: Path) -> Path:
    """Moves the weights into the first of two shards, and returns the second's place."""
    (base / WEIGHTS).rename(base / "a.safetensors")
    (base / INDEX).write_text('{"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}', encoding="utf-8")
    return base / "b.safetensors"


def shard_is_a_pointer(base: Path) -> None:
    two_shards(base).write_bytes(POINTER)


def shards_are_equal(base: Path) -> None:
    second = two_shards(base)
    shutil.copyfile(base / "a.safetensors", second)


def index_is_a_pipe(base: Path) -> None:
    (base / WEIGHTS).unlink()
    os.mkfifo(base / INDEX)


def pickled(base: Path) -> None:
    (base / WEIGHTS).rename(base / "pytorch_model.bin")


@table(
    Hostile("null", index(None), ("must be a mapping with weight_map",)),
    Hostile("a list", index([]), ("must be a mapping with weight_map",)),
    Hostile("no JSON", index(b"{"), ("must hold JSON",)),
    Hostile("no UTF-8", index(b'{"\xff": 1}'), ("UTF-8",)),
    Hostile("a deep list", index(b"[" * 9999 + b"]" * 9999), ("deep",)),
    Hostile("a pointer", index(POINTER), ("git-lfs pointer", "git lfs pull")),
    Hostile("no weight_map", index({"metadata": {}}), ("weight_map", MAP)),
    Hostile("a null map", index({"weight_map": None}), (MAP,)),
    Hostile("a list for a map", index({"weight_map": ["model-1.safetensors"]}), (MAP,)),
    Hostile("an empty map", index({"weight_map": {}}), (MAP,)),
    Hostile(
        "a nested map", index({"weight_map": {"model": {"norm": "a.safetensors"}}}), ("must be the name of a file",)
    ),
    Hostile("a number", target(7), ("weight_map.model.norm.weight", "must be the name of a file")),
    Hostile("5,000 letters", target("a" * 5000), ("at most 255 bytes",)),
    Hostile("a path above", target("../other.safetensors"), (BESIDE,)),
    Hostile("an absolute path", target("/etc/passwd"), (BESIDE,)),
    Hostile("a folder below", target("a/b.safetensors"), (BESIDE,)),
    Hostile("a Windows path", target("a\\b.safetensors"), (BESIDE,)),
    Hostile("dots", target(".."), (BESIDE,)),
    Hostile("no name", target(""), (BESIDE,)),
    Hostile("a NUL", target("a\0.safetensors"), (BESIDE,)),
    Hostile("a pickle", target("pytorch_model.bin"), ("ends in .safetensors",)),
    Hostile(
        "2,000 files", index({"weight_map": {str(n): f"{n}.safetensors" for n in range(2000)}}), ("at most 1000 files",)
    ),
    Hostile(
        "a shard missing",
        index({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}, True),
        ("model-2.safetensors", "of 2 files 1 are missing", "completely"),
    ),
    Hostile("a shard's pointer", plan_changed(shard_is_a_pointer), ("git-lfs pointer", "b.safetensors")),
    Hostile("tensors twice", plan_changed(shards_are_equal), ("must be in one file", "21 tensors", "b.safetensors")),
    Hostile("a pipe", plan_changed(index_is_a_pipe), ("a named pipe",)),
    Hostile("pickled weights", plan_changed(pickled), ("must be safetensors", "can run code", "save_pretrained")),
)
def test_an_index_that_is_none_is_refused(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)
