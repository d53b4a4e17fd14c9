"""A folder's tokenizer is that of transformers' AutoTokenizer, in definition, ids and text. Exact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.support.places import SHARED
from tests.support.trainables.real_tokenizers import KINDS, LEARNED, TEXTS, trained
from tests.support.trainables.same_tokenizers import agree
from trainables.base_model.families import FAMILIES
from trainables.base_model.tokenization.folder import read_folder_tokenizer

CLASSES = (
    None, "PreTrainedTokenizerFast", "LlamaTokenizer", "LlamaTokenizerFast", "Qwen2Tokenizer", "GPT2Tokenizer",
    "GemmaTokenizer", "GemmaTokenizerFast",
)  # fmt: skip
LISTED = {
    "0": {"content": "<unk>", "special": True}, "1": {"content": "<s>", "normalized": True}, "510": {"content": "<z>"},
}  # fmt: skip
CHANGES: tuple[dict[str, Any], ...] = (
    {"extra_special_tokens": ["<x>", "<s>"]},
    {"additional_special_tokens": ["<y>"]},
    {"image_token": "<img>", "pad_token": "<pad>"},
    {"added_tokens_decoder": LISTED},
    {"extra_special_tokens": {"a": "<a>"}},
    {"eos_token": {"__type": "AddedToken", "content": "</s>", "lstrip": True}},
    {"bos_token": None, "unk_token": None},
    {"eos_token": "<new>", "legacy": True},
    {"add_prefix_space": False, "clean_up_tokenization_spaces": True},
    {"unk_token": "<new>", "add_bos_token": True},
)


def folder_of(path: Path, kind: str, model_type: str, declared: str | None, **changes: Any) -> Path:
    trained(kind).save_pretrained(path)
    (path / "config.json").write_text(json.dumps({"model_type": model_type}))
    values = json.loads((path / "tokenizer_config.json").read_text())
    values.pop("tokenizer_class")
    values |= ({"tokenizer_class": declared} if declared else {}) | changes
    (path / "tokenizer_config.json").write_text(json.dumps(values))
    return path


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model_type", FAMILIES)
def test_of_every_class_that_is_built_here(kind: str, model_type: str, tmp_path: Path) -> None:
    for declared in CLASSES:
        folder = folder_of(tmp_path / str(declared), kind, model_type, declared)
        agree(read_folder_tokenizer(folder), AutoTokenizer.from_pretrained(folder))


@pytest.mark.parametrize("changes", CHANGES, ids=str)
@pytest.mark.parametrize(
    ("kind", "declared"), [("metaspace", None), ("prepend", "LlamaTokenizer"), ("prepend", "GemmaTokenizer")]
)
@pytest.mark.parametrize("old_files", [False, True])
def test_of_every_way_to_name_tokens(
    changes: dict[str, Any], kind: str, declared: str | None, old_files: bool, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "model", kind, "llama", declared, **changes)
    if old_files:
        named = {"eos_token": {"content": "</s>", "rstrip": True}, "pad_token": "<q>"}
        (folder / "special_tokens_map.json").write_text(json.dumps({**named, "additional_special_tokens": ["<m>"]}))
        (folder / "added_tokens.json").write_text(json.dumps({"<m>": 700, "<n>": 701}))
    agree(read_folder_tokenizer(folder), AutoTokenizer.from_pretrained(folder))


@pytest.mark.parametrize("model", ["unigram", "wordpiece"])
def test_of_other_models_of_words(model: str, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "<s>", "</s>", *sorted({letter for text in TEXTS for letter in text}), "yes", "▁the", "##s"]
    if model == "unigram":
        backend = Tokenizer(models.Unigram([(word, -float(at)) for at, word in enumerate(words)], unk_id=0))
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    else:
        backend = Tokenizer(models.WordPiece({word: at for at, word in enumerate(words)}, unk_token="<unk>"))
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    for clean_up in (False, True):
        named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
        saved = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=clean_up, **named)
        folder = tmp_path / str(clean_up)
        saved.save_pretrained(folder)
        (folder / "config.json").write_text('{"model_type": "llama"}')
        agree(read_folder_tokenizer(folder), AutoTokenizer.from_pretrained(folder))


@pytest.mark.parametrize("name", [*LEARNED, "cases/model-added-tokens/model", "cases/model-tokenizer-json-only/model"])
def test_of_real_models(name: str) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"needs {name} beside the checkout (../shared)")
    agree(read_folder_tokenizer(SHARED / name), AutoTokenizer.from_pretrained(SHARED / name))


@pytest.mark.parametrize(
    ("changes", "model_type"),
    [
        ({"tokenizer_class": "BertTokenizer"}, "llama"),
        ({"auto_map": {"AutoTokenizer": ["a.B", None]}}, "llama"),
        ({"fast_tokenizer_files": ["tokenizer.json"]}, "llama"),
        ({"fix_mistral_regex": True}, "mistral"),
        ({}, "mamba"),
    ],
)
def test_what_only_transformers_knows_is_left_to_it(changes: dict[str, Any], model_type: str, tmp_path: Path) -> None:
    assert read_folder_tokenizer(folder_of(tmp_path / "model", "metaspace", model_type, None, **changes)) is None
