"""Builds the tokenizer that a GGUF file's metadata describe, as transformers does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from trainables.base_model.checks.gguf_header import read_gguf_header
from trainables.base_model.tokenization.backends import QWEN2_SPLIT, gpt2_backend, llama_backend, split_then_bytes
from trainables.base_model.tokenization.folder import REBUILT, pairs
from trainables.base_model.tokenization.special_tokens import SpecialTokens, add_special_tokens
from trainables.base_model.tokenization.text_tokenizer import TextTokenizer

ARRAYS = tuple(f"tokenizer.ggml.{name}" for name in ("tokens", "merges", "scores", "token_type"))
CONTROL, USER_DEFINED = 3, 4  # types of tokens, as llama.cpp numbers them
CLASSES = {"gpt2": "GPT2Tokenizer", "llama": "LlamaTokenizer"}
SPECIALS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0"), _LLAMA3),
    **dict.fromkeys(("lfm2", "jina-v5-nano", "dbrx", "smaug-bpe"), _LLAMA3),
    "tekken": _TEKKEN,
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez"), QWEN2_SPLIT),
}  # by `tokenizer.ggml.pre`
OTHER_SPLITS = ("qwen35", "gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2")  # left to transformers


def build_gguf_tokenizer(path: Path) -> TextTokenizer | None:
    """Returns the file's tokenizer; None for a kind that only transformers knows.

    Raises ValueError, KeyError or IndexError where the metadata make none.
    """
    metadata = read_gguf_header(path, ARRAYS).metadata
    kind, rule = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if kind not in CLASSES or rule in OTHER_SPLITS:
        return None
    tokens = metadata["tokenizer.ggml.tokens"]
    backend = _byte_level(metadata, tokens) if kind == "gpt2" else _sentencepiece(metadata, tokens)
    add_special_tokens(backend, SpecialTokens(REBUILT[CLASSES[kind]].defaults))
    _add_marked(backend, tokens, metadata.get("tokenizer.ggml.token_type") or (), kind == "gpt2")
    if rule in SPLITS:
        backend.pre_tokenizer = split_then_bytes(SPLITS[rule])
    ids = {name: metadata.get(f"tokenizer.ggml.{own}_token_id") for name, own in SPECIALS.items()}
    named = SpecialTokens({name: None if number is None else tokens[number] for name, number in ids.items()})
    add_special_tokens(backend, named)
    return TextTokenizer(backend, named.text("bos_token"), named.text("eos_token"), named.text("unk_token"))


def byte_letters() -> dict[int, str]:
    """Returns the letter that stands for each byte in byte-level vocabularies (Radford et al. 2019, GPT-2)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [number for number in range(256) if number not in shown]
    return {number: chr(number) for number in shown} | {number: chr(256 + at) for at, number in enumerate(hidden)}


def derived_merges(vocabulary: Mapping[str, int], scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Returns the merges that a SentencePiece vocabulary implies: each token's parts in it, the best token first."""
    found = [
        (scores[token], token[:at], token[at:])
        for token in scores
        for at in _by_id(token, vocabulary)
        if token[:at] in vocabulary and token[at:] in vocabulary
    ]
    found.sort(key=lambda one: (one[0], len(one[1]), len(one[2])), reverse=True)
    return [(left, right) for _, left, right in found]


def _by_id(token: str, vocabulary: Mapping[str, int]) -> list[int]:
    places = [at for at in range(1, len(token)) if token[:at] in vocabulary and token[at:] in vocabulary]
    return sorted(places, key=lambda at: (vocabulary[token[:at]], vocabulary[token[at:]]))


def _byte_level(metadata: Mapping[str, Any], tokens: Sequence[str]) -> Tokenizer:
    letters = byte_letters()
    alphabet = set(letters.values())
    vocabulary = {
        token if alphabet.issuperset(token) else "".join(letters[byte] for byte in token.encode()): number
        for number, token in enumerate(tokens)
    }
    return gpt2_backend(vocabulary, pairs(metadata["tokenizer.ggml.merges"]))


def _sentencepiece(metadata: Mapping[str, Any], tokens: Sequence[str]) -> Tokenizer:
    vocabulary = {token: number for number, token in enumerate(tokens)}
    given = metadata.get("tokenizer.ggml.merges")
    if given is not None:
        return llama_backend(vocabulary, pairs(given))
    scores = dict(zip(tokens, metadata["tokenizer.ggml.scores"], strict=False))
    return llama_backend(vocabulary, derived_merges(vocabulary, scores))


def _add_marked(backend: Tokenizer, tokens: Sequence[str], types: Sequence[int], byte_level: bool) -> None:
    """Adds the tokens that the file marks as control as special ones, and those marked as user-defined as plain ones.

    In a byte-level vocabulary a control token with a letter beyond the bytes' alphabet is marked in error, and passed
    over.
    """
    alphabet = set(byte_letters().values()) if byte_level else None
    marked = list(zip(tokens, types, strict=False))
    control = [token for token, kind in marked if kind == CONTROL and (alphabet is None or alphabet.issuperset(token))]
    if control:
        backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    known = backend.get_vocab()
    plain = [token for token, kind in marked if kind == USER_DEFINED and token in known]
    if plain:
        backend.add_tokens([AddedToken(token, normalized=False, special=False) for token in plain])
