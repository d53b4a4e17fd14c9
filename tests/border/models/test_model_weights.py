"""Weights that are not whole, or not the configuration's: seen from headers before anything is loaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.border.hostile import Hostile, table
from tests.support.trainables.hostile_models import (
    INDEX,
    POINTER,
    WEIGHTS,
    Header,
    Maker,
    content,
    header,
    in_folder,
    index,
    plan_changed,
    set_entry,
    tensors,
)  # fmt: skip

WHOLE = "must be a whole safetensors file"


def cut(count: int) -> Maker:
    """Returns a maker whose weights are cut to so many bytes, or by so many where it is negative."""

    def damage(base: Path) -> None:
        size = (base / WEIGHTS).stat().st_size
        os.truncate(base / WEIGHTS, count if count > 0 else size + count)

    return plan_changed(damage)


def append(base: Path) -> None:
    with (base / WEIGHTS).open("ab") as file:
        file.write(b"12345")


def rename(values: Header, old: str, new: str) -> Header:
    return {name.replace(old, new): entry for name, entry in values.items()}


def without(values: Header, *names: str) -> Header:
    return {name: entry for name, entry in values.items() if not name.endswith(names)}


def with_shape(values: Header, name: str, *shape: int) -> Header:
    return {**values, name: {"dtype": "F32", "shape": list(shape)}}


@table(
    Hostile("a pointer", content(WEIGHTS, POINTER), ("git-lfs pointer", "git lfs pull", WEIGHTS)),
    Hostile(
        "a tokenizer's pointer",
        content("tokenizer.json", POINTER),
        ("git-lfs pointer", "git lfs pull", "tokenizer.json"),
    ),
    Hostile(
        "a configuration's pointer", content("config.json", POINTER), ("git-lfs pointer", "git lfs pull", "config.json")
    ),
    Hostile("a small file's pointer", content("generation_config.json", POINTER), ("git-lfs pointer", "git lfs pull")),
    Hostile("a page", content(WEIGHTS, b"<!DOCTYPE html><html>"), ("an HTML page", WHOLE, "Download the file itself")),
    Hostile("an answer", content(WEIGHTS, b'{"error":"Unauthorized"}'), ("an error message of the server", WHOLE)),
    Hostile("a torch file", content(WEIGHTS, b"PK\x03\x04" + bytes(99)), ("a zip archive", "can run code")),
    Hostile("a pickle", content(WEIGHTS, b"\x80\x02\x8a\x0al\xfc"), ("a pickle", "can run code")),
    Hostile("a GGUF file", content(WEIGHTS, b"GGUF\x03\0\0\0" + bytes(99)), ("a GGUF file", "ends in .gguf")),
    Hostile("a gzip", content(WEIGHTS, b"\x1f\x8b\x08\x08\x11\x22\x33\x44" * 9), ("a gzip archive", "Unpack it")),
    Hostile("nothing", content(WEIGHTS, b""), ("an empty file", WHOLE)),
    Hostile("zeros", content(WEIGHTS, bytes(4096)), (WHOLE,)),
    Hostile("a folder", in_folder(WEIGHTS, Path.mkdir), ("a folder", WHOLE)),
    Hostile("a pipe", in_folder(WEIGHTS, os.mkfifo), ("a named pipe", WHOLE)),
    Hostile("a device", in_folder(WEIGHTS, lambda path: path.symlink_to("/dev/zero")), ("a device", WHOLE)),
    Hostile("noise", in_folder(WEIGHTS, lambda path: path.symlink_to("/dev/urandom")), ("a device", WHOLE)),
    Hostile("a loop", in_folder(WEIGHTS, lambda path: path.symlink_to(path.name)), ("a link to nothing", WHOLE)),
)
def test_what_is_no_weights_file_is_refused(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


@table(
    Hostile("cut at the end", cut(-50), ("truncated", "to its end")),
    Hostile("cut in half", cut(40_000), ("truncated", "to its end")),
    Hostile("cut in the header", cut(100), ("truncated", WHOLE)),
    Hostile("seven bytes", cut(7), (WHOLE,)),
    Hostile(
        "bytes behind",
        plan_changed(append),
        ("5 bytes after",),
    ),
    Hostile("a header of gigabytes", content(WEIGHTS, (2**34).to_bytes(8, "little") + b"{}" * 999), (WHOLE,)),
    Hostile("a header of 2^63", content(WEIGHTS, (2**63).to_bytes(8, "little") + b"{}" * 999), (WHOLE,)),
    Hostile("a list", header(lambda values: [1]), ("no mapping of names", WHOLE)),
    Hostile("no JSON", header(lambda values: b"{nonsense}"), ("no JSON", WHOLE)),
    Hostile(
        "a deep header",
        header(lambda values: b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"),
        ("no JSON", "lists and objects"),
    ),
    Hostile("an endless number", header(lambda values: b'{"a":' + b"9" * 9000 + b"}"), ("no JSON", WHOLE)),
    Hostile("no UTF-8", header(lambda values: b'{"\xff\xfe": 1}'), ("no JSON", WHOLE)),
    Hostile("a text for a tensor", header(lambda values: {**values, "x": "y"}), ("dtype, shape and data_offsets",)),
    Hostile("an unknown type", set_entry(dtype="F33"), ("norm.weight.dtype", "F33", "must be a type")),
    Hostile("a list for a type", set_entry(dtype=["F32"]), ("norm.weight.dtype", "must be a type")),
    Hostile("a negative size", set_entry(shape=[-32]), ("norm.weight.shape", "must be a list of sizes")),
    Hostile("a fraction's size", set_entry(shape=[32.0]), ("norm.weight.shape", "must be a list of sizes")),
    Hostile("a true size", set_entry(shape=[True]), ("norm.weight.shape", "must be a list of sizes")),
    Hostile("2^62 numbers", set_entry(shape=[2**62]), ("norm.weight.data_offsets", "must span")),
    Hostile("many dimensions", set_entry(shape=[1] * 5000), ("norm.weight.shape", "must be a list of sizes")),
    Hostile("another size", set_entry(shape=[33]), ("norm.weight.data_offsets", "must span the 132 bytes")),
    Hostile("offsets in turn", set_entry(data_offsets=[128, 0]), ("norm.weight.data_offsets", "the end last")),
    Hostile("one offset", set_entry(data_offsets=[0]), ("norm.weight.data_offsets", "must be two places")),
    Hostile("texts for offsets", set_entry(data_offsets=["0", "128"]), ("norm.weight.data_offsets", "must be two")),
    Hostile("overlapping", set_entry(data_offsets=[0, 128]), ("data_offsets", "must begin where the tensor before")),
    Hostile("beyond the file", set_entry(data_offsets=[10**9, 10**9 + 128]), ("must begin where the tensor before",)),
    Hostile("all broken", header(lambda values: {f"t{n}": n for n in range(999)}), ("998 more like it",)),
)
def test_a_header_that_does_not_hold_is_refused(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


AS_CONFIG = "config.json asks for"


@table(
    Hostile("one missing", tensors(lambda t: without(t, "0.mlp.up_proj.weight")), ("one tensor is missing", AS_CONFIG)),
    Hostile(
        "a layer missing", tensors(lambda t: {n: e for n, e in t.items() if ".1." not in n}), ("9 tensors are missing",)
    ),
    Hostile(
        "the head missing", tensors(lambda t: without(t, "lm_head.weight")), ("lm_head.weight", "one tensor is missing")
    ),
    Hostile(
        "a wider embedding",
        tensors(lambda t: with_shape(t, "model.embed_tokens.weight", 100, 32)),
        ("97 x 32", "100 x 32"),
    ),
    Hostile("a flat weight", tensors(lambda t: with_shape(t, "model.norm.weight", 4, 8)), ("4 x 8", AS_CONFIG)),
    Hostile("a scalar", tensors(lambda t: with_shape(t, "model.norm.weight")), ("a single number", AS_CONFIG)),
    Hostile(
        "a layer too many", tensors(lambda t: {**t, **rename(t, ".1.", ".2.")}), ("9 are not, and would be dropped",)
    ),
    Hostile(
        "a bias too many",
        tensors(lambda t: with_shape(t, "model.layers.0.self_attn.q_proj.bias", 32)),
        ("would be dropped",),
    ),
    Hostile(
        "another prefix",
        tensors(lambda t: rename(t, "model.", "module.model.")),
        ("begin with 'module.'", "save_pretrained"),
    ),
    Hostile("other names", tensors(lambda t: rename(t, "layers.", "h.")), ("18 tensors are missing", AS_CONFIG)),
    Hostile("with and without", tensors(lambda t: {**t, **rename(t, "model.norm", "norm")}), ("must be there once",)),
    Hostile(
        "integers", tensors(lambda t: {n: {**e, "dtype": "I8"} for n, e in t.items()}), ("quantized", "nf4 quantizes")
    ),
    Hostile("no tensors", header(lambda values: {"__metadata__": {}}), ("after its last tensor",)),
)
def test_weights_that_are_not_the_configurations_are_refused(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


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
