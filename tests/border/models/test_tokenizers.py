"""Tokenizers that are broken, hostile, or do not belong to their model: refused in time, or harmless."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.border.hostile import Hostile, table
from tests.support.border.tokenizer_changes import (
    BYTES,
    DOUBLE,
    DROPOUT,
    EVERYWHERE,
    NORMAL_BYTES,
    REMOVE,
    added,
    backtracking,
    content,
    empty_vocabulary,
    grow,
    named,
    one_row,
    plan,
    several,
    special_file,
    split,
    tokenizer,
    touched,
    vocabulary,
    without,
    write,
)
from trainables.base_model import tokenizer_limits
from trainables.dataset.tokens import encoding

READ = ("base_model.path", "must have a tokenizer beside it", "cannot be read", "Copy the model's tokenizer")
ALL_ROWS = {"name": "mine", "train_file": "rows.jsonl", "max_tokens": 64}
GROWS = ("must make a text at most 100 times as long", "Take the model's own tokenizer.json")


@pytest.fixture
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no end is told from what is slow within a second, not within the many that a busy machine needs."""
    monkeypatch.setattr(tokenizer_limits, "PROBE_SECONDS", 0.5)
    monkeypatch.setattr(encoding, "PATIENCE_SECONDS", 0.3)


@table(
    Hostile("none", plan(without("tokenizer.json", "tokenizer_config.json")), READ),
    Hostile("empty", plan(content("tokenizer.json", "")), READ),
    Hostile("no JSON", plan(content("tokenizer.json", "{")), READ),
    Hostile("a list", plan(content("tokenizer.json", "[]")), READ),
    Hostile("null", plan(content("tokenizer.json", "null")), READ),
    Hostile("binary", plan(content("tokenizer.json", bytes(range(256)) * 40)), READ),
    Hostile(
        "an LFS pointer",
        plan(content("tokenizer.json", "version https://git-lfs.github.com/spec/v1\n")),
        ("git lfs pull",),
    ),
    Hostile("half", plan(lambda m: write(m / "tokenizer.json", (m / "tokenizer.json").read_bytes()[:500])), READ),
    Hostile("deep", plan(content("tokenizer.json", '{"model":' * 10_000)), READ),
    Hostile("deep configuration", plan(content("tokenizer_config.json", '{"a":' * 10_000 + "1" + "}" * 10_000)), READ),
    Hostile("configuration a list", plan(content("tokenizer_config.json", "[1]")), READ),
    Hostile("negative id", plan(vocabulary(**{"~": -1})), READ),
    Hostile("id of 2^40", plan(vocabulary(**{"~": 2**40})), READ),
    Hostile("id of 10^400", plan(vocabulary(**{"~": 10**400})), READ),
    Hostile("id text", plan(vocabulary(**{"~": "x"})), READ),
    Hostile("id null", plan(vocabulary(**{"~": None})), READ),
    Hostile("unknown model", plan(tokenizer("model", type="Telepathy")), READ),
    Hostile("no model", plan(tokenizer(model=None)), READ),
    Hostile("unknown normalizer", plan(tokenizer(normalizer={"type": "Telepathy"})), READ),
    Hostile("a regex that is none", plan(tokenizer(pre_tokenizer=split("("))), READ),
    Hostile("EOS a number", plan(named(eos_token=5)), READ),
    Hostile("BOS a list", plan(named(bos_token=["<s>"])), READ),
    Hostile("extra tokens a number", plan(named(extra_special_tokens=5)), READ),
    Hostile("length of words", plan(named(model_max_length="many")), (*READ, "model_max_length must be a number")),
    Hostile("added token without text", plan(tokenizer(added_tokens=[{"id": 5}])), READ),
    Hostile("added token of id -1", plan(added((-1, "<x>"))), READ),
)
def test_what_is_no_tokenizer_is_refused(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


@table(
    Hostile("tokenizer.json a pipe", plan(special_file("tokenizer.json")), ("a named pipe", "regular file")),
    Hostile("tokenizer.json endless", plan(special_file("tokenizer.json", "/dev/zero")), ("a device", "regular file")),
    Hostile("configuration a pipe", plan(special_file("tokenizer_config.json")), ("a named pipe", "regular file")),
    Hostile("configuration random", plan(special_file("tokenizer_config.json", "/dev/urandom")), ("a device",)),
    Hostile("special tokens a pipe", plan(special_file("special_tokens_map.json")), ("a named pipe",)),
    Hostile("added tokens endless", plan(special_file("added_tokens.json", "/dev/zero")), ("a device",)),
    Hostile("template a pipe", plan(special_file("chat_template.jinja")), ("a named pipe", "regular file")),
    Hostile("merges a folder", plan(lambda m: (m / "merges.txt").mkdir()), ("a folder", "regular file")),
    Hostile("tokenizer.model a pipe", plan(special_file("tokenizer.model")), ("a named pipe", "regular file")),
    Hostile(
        "4 GiB of nothing",
        plan(lambda m: (m / "tokenizer.json").unlink(), lambda m: os.truncate(touched(m / "tokenizer.json"), 2**32)),
        ("at most 128 MiB", "holds 4,096 MiB"),
    ),
    Hostile(
        "added tokens without end",
        plan(added(*((97 + n, f"<{n}>") for n in range(60_000)))),
        ("at most 50,000 added tokens", "lists 60,00"),
    ),
)
def test_files_that_have_no_end_are_not_read(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


@table(
    Hostile("explodes", plan(tokenizer(normalizer=grow("e", "ee", 40))), GROWS),
    Hostile("explodes at once", plan(tokenizer(normalizer=grow("e", "e" * 100_000, 1))), GROWS),
    Hostile("explodes in steps", plan(tokenizer(normalizer=grow("e", "e" * 50, 1), pre_tokenizer=BYTES)), GROWS),
    Hostile("explodes everywhere", plan(tokenizer(normalizer=EVERYWHERE)), GROWS),
    Hostile("begins with a book", plan(tokenizer(normalizer={"type": "Prepend", "prepend": "x" * 10**6})), GROWS),
    Hostile("bytes of bytes", plan(tokenizer(pre_tokenizer=several("pretokenizers", BYTES, 30))), GROWS),
    Hostile("normalized to bytes", plan(tokenizer(normalizer=several("normalizers", NORMAL_BYTES, 30))), GROWS),
    Hostile("decodes without end", plan(tokenizer(decoder=several("decoders", DOUBLE, 60))), ("decoder", *GROWS)),
    Hostile(
        "a regex that backtracks",
        plan(tokenizer(pre_tokenizer=split("(a+)+$"))),
        ("must tokenize", "own tokenizer.json"),
    ),
    Hostile(
        "a normalizer that backtracks",
        plan(tokenizer(normalizer=backtracking("(a+)+$"))),
        ("must tokenize", "own tokenizer.json"),
    ),
    Hostile(
        "backtracks in the data",
        plan(tokenizer(pre_tokenizer=split(r"(xx*)*\.|.")), one_row("x" * 500 + "!"), dataset=ALL_ROWS),
        ("dataset", "must tokenize", "or shorten the rows"),
    ),
    Hostile(
        "backtracks slowly",
        plan(tokenizer(pre_tokenizer=split(r"x*x*\.|.")), one_row("x" * 2000 + "!"), dataset=ALL_ROWS),
        ("dataset", "must tokenize", "had not ended after"),
    ),
    Hostile("no vocabulary", plan(empty_vocabulary), ("finds none", "is its vocabulary empty", "own tokenizer.json")),
    Hostile("drops all", plan(tokenizer(normalizer=REMOVE)), ("finds none", "own tokenizer.json")),
    Hostile("another each time", plan(tokenizer(model=DROPOUT)), ("the same tokens each time", "Set it to null")),
)
@pytest.mark.usefixtures("little_patience")
def test_what_grows_or_hangs_is_refused_in_time(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)
