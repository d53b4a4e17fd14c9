"""GGUF files that are parts, damaged, or of another kind of model: refused from their headers."""

from __future__ import annotations

import functools
import math
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest

from tests.border.hostile import Hostile, table
from tests.support.made_up_studies import write_study_file
from tests.support.trainables.gguf_files import ABSENT, small_llama, write_gguf
from tests.support.trainables.hostile_models import POINTER, Maker

WHOLE = "must be a whole GGUF file"
NUMBER = "must be a whole number from"
MERGE = "gguf-split --merge"


@functools.cache
def good_llama() -> Any:
    return small_llama()


@functools.cache
def good_bytes(folder: Path) -> bytes:
    return write_gguf(folder / "good.gguf", good_llama()).read_bytes()


@pytest.fixture(scope="module", autouse=True)
def planned_once(tmp_path_factory: pytest.TempPathFactory, good_model: Path) -> None:
    """The good file can be planned; and its imports count for no input."""
    from study.cli.main import main

    folder = tmp_path_factory.mktemp("gguf")
    file = write_gguf(folder / "good.gguf", good_llama())
    assert main(["plan", str(write_study_file(folder, file))]) == 0


def plan_gguf(name: str = "model.gguf", **options: Any) -> Maker:
    """Returns a maker that plans over the small Llama as a GGUF file, with other metadata or tensors."""

    def make(folder: Path, model: Path) -> list[str]:
        file = write_gguf(folder / name, good_llama(), **options)
        return ["plan", str(write_study_file(folder, file))]

    return make


def fields(**changes: Any) -> Maker:
    """Returns a maker whose metadata differ; `__` in a key stands for a dot."""
    return plan_gguf(fields={key.replace("__", "."): value for key, value in changes.items()})


def plan_bytes(change: Callable[[bytes], bytes], name: str = "model.gguf") -> Maker:
    """Returns a maker that plans over the small Llama's file, with its bytes changed."""

    def make(folder: Path, model: Path) -> list[str]:
        (folder / name).write_bytes(change(good_bytes(model.parent)))
        return ["plan", str(write_study_file(folder, folder / name))]

    return make


def put(at: int, form: str, value: int) -> Maker:
    """Returns a maker whose file holds another number at a place of the header."""
    return plan_bytes(lambda whole: whole[:at] + struct.pack(form, value) + whole[at + struct.calcsize(form) :])


def after(word: bytes, offset: int, form: str, value: int) -> Maker:
    """Returns a maker whose file holds another number so many bytes behind a name."""

    def change(whole: bytes) -> bytes:
        at = whole.index(word) + len(word) + offset
        return whole[:at] + struct.pack(form, value) + whole[at + struct.calcsize(form) :]

    return plan_bytes(change)


def there(make: Callable[[Path], Any]) -> Maker:
    def maker(folder: Path, model: Path) -> list[str]:
        make(folder / "model.gguf")
        return ["plan", str(write_study_file(folder, folder / "model.gguf"))]

    return maker


@table(
    Hostile("a split's part", fields(split__count=2, split__no=0), ("part 1 of 2", MERGE)),
    Hostile("a nameless part", fields(split__count=3), ("one of 3 parts", MERGE)),
    Hostile("a middle part by name", plan_bytes(lambda whole: _without(whole, b"token_embd"), "m-00002-of-00003.gguf"),
            ("part 2 of 3", MERGE)),
    Hostile("a pointer", plan_bytes(lambda whole: POINTER), ("git-lfs pointer", "git lfs pull")),
    Hostile("a page", plan_bytes(lambda whole: b"<!doctype html>"), ("an HTML page", WHOLE)),
    Hostile("nothing", plan_bytes(lambda whole: b""), ("an empty file", WHOLE)),
    Hostile("a text", plan_bytes(lambda whole: b"not a model at all"), ("not a GGUF file", WHOLE)),
    Hostile("a torch file", plan_bytes(lambda whole: b"PK\x03\x04" + whole), ("a zip archive", "can run code")),
    Hostile("safetensors", plan_bytes(lambda whole: (99).to_bytes(8, "little") + b"{" + bytes(99)), (WHOLE,)),
    Hostile("zeros", plan_bytes(lambda whole: bytes(4096)), (WHOLE,)),
    Hostile("a pipe", there(os.mkfifo), ("a named pipe", WHOLE)),
    Hostile("a device", there(lambda path: path.symlink_to("/dev/zero")), ("a device", WHOLE)),
    Hostile("a link to nothing", there(lambda path: path.symlink_to("nothing")), ("a link to nothing", WHOLE)),
    Hostile("a folder", there(Path.mkdir), ("must be a model's folder",)),
    Hostile("the magic alone", plan_bytes(lambda whole: whole[:4]), ("truncated", WHOLE)),
    Hostile("cut in the counts", plan_bytes(lambda whole: whole[:20]), ("truncated", WHOLE)),
    Hostile("cut in the fields", plan_bytes(lambda whole: whole[:300]), ("truncated", WHOLE)),
    Hostile("cut in the tokens", plan_bytes(lambda whole: whole[:1500]), ("truncated", WHOLE)),
    Hostile("cut in the weights", plan_bytes(lambda whole: whole[: len(whole) // 2]), ("truncated", "to its end")),
    Hostile("cut at the end", plan_bytes(lambda whole: whole[:-64]), ("truncated", "to its end")),
    Hostile("version 1", put(4, "<I", 1), ("of version 1", WHOLE)),
    Hostile("version 99", put(4, "<I", 99), ("of version 99", WHOLE)),
    Hostile("big-endian", put(4, ">I", 3), ("big-endian", WHOLE)),
    Hostile("2^63 tensors", put(8, "<Q", 2**63), ("tensors", WHOLE)),
    Hostile("2^32 fields", put(16, "<Q", 2**32), ("fields", WHOLE)),
    Hostile("a field too many", put(16, "<Q", 500), (WHOLE,)),
    Hostile("a key of 2^60 bytes", put(24, "<Q", 2**60), ("a text of", WHOLE)),
    Hostile("2^40 tokens", after(b"tokenizer.ggml.tokens", 8, "<Q", 2**40), ("items", WHOLE)),
    Hostile("4 M tokens", after(b"tokenizer.ggml.tokens", 8, "<Q", 2**22), ("truncated", WHOLE)),
    Hostile("a field of type 77", after(b"llama.block_count", 0, "<I", 77), ("the unknown type 77", WHOLE)),
    Hostile("a list of lists", after(b"tokenizer.ggml.tokens", 4, "<I", 9), ("a list of the unknown type", WHOLE)),
)  # fmt: skip
def test_a_file_that_is_no_whole_gguf_is_refused(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


def _without(whole: bytes, name: bytes) -> bytes:
    """The file with a tensor renamed to one of another layer, so that the first part's is not there."""
    return whole.replace(name + b".weight", b"blk.7.ffn_up"[: len(name)].ljust(len(name), b"x") + b".weight")


@table(
    Hostile("no dimension", after(b"output_norm.weight", 0, "<I", 0), ("0 dimensions", WHOLE)),
    Hostile("nine dimensions", after(b"output_norm.weight", 0, "<I", 9), ("9 dimensions", WHOLE)),
    Hostile("a size of 0", after(b"output_norm.weight", 4, "<Q", 0), ("of the sizes", WHOLE)),
    Hostile("a size of 2^60", after(b"output_norm.weight", 4, "<Q", 2**60), ("of the sizes", WHOLE)),
    Hostile("another size", after(b"output_norm.weight", 4, "<Q", 32), ("output_norm.weight", "metadata ask")),
    Hostile("an unknown type", after(b"output_norm.weight", 12, "<I", 77), ("output_norm.weight.type", "quantization")),
    Hostile("an integer type", after(b"output_norm.weight", 12, "<I", 24), ("output_norm.weight.type", "quantization")),
    Hostile("a broken place", after(b"output_norm.weight", 16, "<Q", 7), ("offset", "multiple of 32")),
    Hostile("over another", after(b"output_norm.weight", 16, "<Q", 0), ("offset", "behind the tensor before it")),
    Hostile("beyond the end", after(b"output_norm.weight", 16, "<Q", 2**50), ("truncated", WHOLE)),
    Hostile("an expert", plan_gguf(tensor="blk.0.ffn_gate_exps.weight"), ("Llama-like model's tensors", "dense")),
    Hostile("a layer too many", plan_gguf(tensor="blk.2.attn_norm.weight"), ("would be dropped",)),
    Hostile("scaled frequencies", plan_gguf(tensor="rope_freqs.weight"), ("plain rotary positions", "safetensors")),
    Hostile("YARN", plan_gguf(scaling=gguf.RopeScalingType.YARN), ("plain rotary positions", "safetensors")),
    Hostile("scaled by 5", fields(llama__rope__scaling__type=5), ("plain rotary positions",)),
    Hostile("a lost embedding", plan_bytes(lambda whole: _without(whole, b"token_embd")), ("must",)),
    Hostile("another architecture", plan_gguf(kind="phi3"), ("'phi3'", "must be of the architecture llama")),
    Hostile("no architecture", fields(general__architecture=ABSENT), ("must be of the architecture",)),
    Hostile("a number for it", fields(general__architecture=7), ("must be of the architecture",)),
    Hostile("5,000 letters", fields(general__architecture="x" * 5000), ("must be of the architecture", "…")),
    Hostile("an alignment of 0", fields(general__alignment=0), ("an alignment of 0", WHOLE)),
    Hostile("an alignment of 33", fields(general__alignment=33), ("an alignment of 33", WHOLE)),
    Hostile("an alignment of text", fields(general__alignment="32"), ("an alignment of 32", WHOLE)),
)  # fmt: skip
def test_tensors_that_are_not_a_models_are_refused(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


def size(name: str, key: str, value: Any, *words: str) -> Hostile:
    return Hostile(name, plan_gguf(fields={key: value}), (key, *words))


@table(
    size("a million layers", "llama.block_count", 10**6, "1000000", NUMBER),
    size("no layer", "llama.block_count", 0, NUMBER),
    Hostile("another count of layers", fields(llama__block_count=3), ("tensors are missing", "metadata ask")),
    size("layers not said", "llama.block_count", ABSENT, NUMBER),
    size("layers of text", "llama.block_count", "2", NUMBER),
    size("layers of a list", "llama.block_count", [2, 2], NUMBER),
    size("layers of 2.0", "llama.block_count", 2.0, NUMBER),
    size("true layers", "llama.block_count", True, NUMBER),
    size("-8 wide", "llama.embedding_length", -8, NUMBER),
    size("no width", "llama.embedding_length", 0, NUMBER),
    size("width not said", "llama.embedding_length", ABSENT, NUMBER),
    Hostile("another width", fields(llama__embedding_length=128), ("metadata ask",)),
    size("no MLP", "llama.feed_forward_length", 0, NUMBER),
    size("MLP of a list", "llama.feed_forward_length", [96, 96], NUMBER),
    size("no heads", "llama.attention.head_count", 0, NUMBER),
    size("heads by layer", "llama.attention.head_count", [8, 8], NUMBER),
    size("heads not said", "llama.attention.head_count", ABSENT, NUMBER),
    size("heads that do not divide", "llama.attention.head_count", 7, "must divide hidden_size"),
    size("no shared heads", "llama.attention.head_count_kv", 0, NUMBER),
    size("shared heads in thirds", "llama.attention.head_count_kv", 3, "must divide num_attention_heads"),
    size("no positions", "llama.context_length", 0, NUMBER),
    size("positions not said", "llama.context_length", ABSENT, NUMBER),
    size("NaN epsilon", "llama.attention.layer_norm_rms_epsilon", math.nan, "must be a number from 1e-30 to 0.1"),
    size("epsilon of text", "llama.attention.layer_norm_rms_epsilon", "1e-5", "must be a number from 1e-30 to 0.1"),
    size("epsilon not said", "llama.attention.layer_norm_rms_epsilon", ABSENT, "must be a number from 1e-30 to 0.1"),
    size("theta 0", "llama.rope.freq_base", 0.0, "must be a number"),
    size("NaN theta", "llama.rope.freq_base", math.nan, "must be a number"),
    size("theta of text", "llama.rope.freq_base", "5e4", "must be a number"),
    size("a begin beyond", "tokenizer.ggml.bos_token_id", 99_999, "must be less than vocab_size"),
    size("an end of text", "tokenizer.ggml.eos_token_id", "</s>", NUMBER),
    size("a pad beyond", "tokenizer.ggml.padding_token_id", 2**32 - 1, NUMBER),
)  # fmt: skip
def test_metadata_without_sense_are_refused(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


@table(
    Hostile("no tokens", fields(tokenizer__ggml__tokens=ABSENT), ("must have a tokenizer",)),
    Hostile("no model", fields(tokenizer__ggml__model=ABSENT), ("must have a tokenizer",)),
    Hostile("tokens of text", fields(tokenizer__ggml__tokens="abc"), ("must have a tokenizer",)),
    Hostile("merges of numbers", fields(tokenizer__ggml__merges=[1, 2]), ("must have a tokenizer",)),
    Hostile("an unknown model", fields(tokenizer__ggml__model="abacus"), ("must have a tokenizer",)),
)
def test_a_tokenizer_that_is_none_is_refused(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)
