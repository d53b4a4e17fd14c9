"""Builds the tokenizer of a model's folder from `tokenizer.json` and the files beside it, as transformers would.

transformers rebuilds the tokenizer of some classes from its vocabulary alone. Classes that are not in `REBUILT`, and
files without a `tokenizer.json`, are converted by transformers once (`trainables.base_model.tokenization.conversion`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from trainables.base_model.tokenization.backends import (
    Options,
    gemma_backend,
    gpt2_backend,
    llama_backend,
    qwen2_backend,
)
from trainables.base_model.tokenization.special_tokens import add_special_tokens, read_special_tokens
from trainables.base_model.tokenization.text_tokenizer import TextTokenizer
from trainables.guarded_files import FileRefusedError, parse_json, read_text

MOST_BYTES = 128 * 2**20
PLAIN = ("TokenizersBackend", "PreTrainedTokenizer")  # whose tokenizer.json is taken as it is
OWN_CLASSES = {  # of model types; others have none
    "qwen2": "Qwen2Tokenizer", "qwen3": "Qwen2Tokenizer", "gemma2": "GemmaTokenizer", "gemma3_text": "GemmaTokenizer",
}  # fmt: skip
ALWAYS_PLAIN = ("mistral", "phi3", "olmo2", "granite")  # whatever class their files name
KNOWN_TYPES = ("llama", "smollm3", *ALWAYS_PLAIN, *OWN_CLASSES)
SIDES = ("padding_side", "truncation_side")


@dataclass(frozen=True)
class Rebuilt:
    """A class that builds its tokenizer anew: how, and its special tokens where the files name none."""

    build: Callable[..., Tokenizer]
    defaults: Mapping[str, str | None]
    adds_all: bool = False  # its special tokens are added once more, as special ones


_ENDS = "<|endoftext|>"
REBUILT = {
    "LlamaTokenizer": Rebuilt(llama_backend, {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}),
    "GPT2Tokenizer": Rebuilt(gpt2_backend, {"unk_token": _ENDS, "bos_token": _ENDS, "eos_token": _ENDS}),
    "Qwen2Tokenizer": Rebuilt(
        qwen2_backend, {"unk_token": _ENDS, "eos_token": _ENDS, "pad_token": _ENDS}, adds_all=True
    ),
    "GemmaTokenizer": Rebuilt(
        gemma_backend,
        {
            "unk_token": "<unk>",
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "mask_token": "<mask>",
        },
    ),
}


def read_folder_tokenizer(folder: Path) -> TextTokenizer | None:
    """Returns the folder's tokenizer; None where only transformers knows what its files mean.

    Raises ValueError, TypeError or the library's own Exception for files that make no tokenizer.
    """
    config, model = _mapping(folder / "tokenizer_config.json"), _mapping(folder / "config.json")
    text = _text(folder / "tokenizer.json") if (folder / "tokenizer.json").exists() else None
    if text is None or _is_foreign(folder, config):
        return None
    name = class_name(config, model, '"ByteLevel"' in text)
    if name is None:
        return None
    _check_settings(config)
    rebuilt = REBUILT.get(name)
    backend = Tokenizer.from_str(text)
    tokens = read_special_tokens(
        config,
        _mapping(folder / "special_tokens_map.json"),
        _mapping(folder / "added_tokens.json"),
        backend.get_added_tokens_decoder(),
        rebuilt.defaults if rebuilt else {},
    )
    if rebuilt is not None:
        parts = _parts(text)
        if parts is None:
            return None
        asked = (config.get("add_prefix_space"), bool(config.get("legacy", False)), tokens.text("unk_token"))
        backend = rebuilt.build(*parts, Options(*asked))
    backend.no_truncation()
    backend.no_padding()
    add_special_tokens(backend, tokens)
    if rebuilt and rebuilt.adds_all:
        backend.add_tokens([AddedToken(one, special=True) for one in tokens.all_texts()])
    clean_up = bool(config.get("clean_up_tokenization_spaces")) and type(backend.model).__name__ != "BPE"
    texts = (tokens.text("bos_token"), tokens.text("eos_token"), tokens.text("unk_token"))
    return TextTokenizer(backend, *texts, clean_up)


def class_name(config: Mapping[str, Any], model: Mapping[str, Any], byte_level: bool) -> str | None:
    """Returns which of transformers' classes it would take, `PLAIN[0]` for any plain one; None for one not known here.

    `config` is `tokenizer_config.json`, `model` is `config.json`; `byte_level`: whether `tokenizer.json` speaks of it.
    """
    kind = model.get("model_type")
    declared = config.get("tokenizer_class") or model.get("tokenizer_class")
    if kind not in KNOWN_TYPES or not isinstance(declared, str | None):
        return None
    if kind in ALWAYS_PLAIN:
        return PLAIN[0]
    own = OWN_CLASSES.get(kind)
    if own is not None and (kind == "qwen2" or declared is None):
        return own
    name = (declared or PLAIN[0]).removesuffix("Fast")
    if name in PLAIN or (name == "LlamaTokenizer" and byte_level):
        return PLAIN[0]
    return name if name in REBUILT else None


def _is_foreign(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether the files ask for what only transformers does: code, other files, Mistral's own form, a mended rule."""
    asked = ("auto_map", "fast_tokenizer_files", "init_inputs", "fix_mistral_regex")
    forced = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
    return (folder / "tekken.json").exists() or any(config.get(key) for key in (*asked, forced))


def _check_settings(config: Mapping[str, Any]) -> None:
    """Raises ValueError for settings that transformers refuses, although they change no token."""
    longest = config.get("model_max_length")
    if longest is not None and not isinstance(longest, int | float):
        raise ValueError(f"model_max_length must be a number; it is {str(longest)[:40]!r}")
    for key in SIDES:
        if config.get(key, "right") not in ("right", "left"):
            raise ValueError(f"{key} must be right or left; it is {str(config[key])[:40]!r}")


def _parts(text: str) -> tuple[dict[str, int], list[tuple[str, str]]] | None:
    """Vocabulary and merges of a BPE tokenizer.json; None where its model is another."""
    model = parse_json(text).get("model", {})
    vocabulary, merges = model.get("vocab"), model.get("merges")
    if model.get("type") != "BPE" or not isinstance(vocabulary, dict) or not isinstance(merges, list):
        return None
    return vocabulary, pairs(merges)


def pairs(merges: Sequence[Any]) -> list[tuple[str, str]]:
    """Returns merges as pairs of tokens, which files also write as one text with a space between them."""
    return [tuple(one.split(" ")) if isinstance(one, str) else tuple(one) for one in merges]  # type: ignore[misc]


def _text(path: Path) -> str:
    """A file's text; what it holds instead is a fault of the tokenizer, as any other that makes it unreadable."""
    try:
        return read_text(path, MOST_BYTES)
    except FileRefusedError as error:
        raise ValueError(str(error)) from None


def _mapping(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    values = parse_json(_text(path))
    if not isinstance(values, dict):
        raise ValueError(f"{path.name} must be a mapping in JSON; it is a {type(values).__name__}")
    return values
