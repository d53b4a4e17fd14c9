"""Builds the tokenizers that transformers' classes build from a vocabulary and its merges alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

Vocabulary = Mapping[str, int]
Merges = Sequence[tuple[str, str]]
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Prefix:
    """Whether a space is put before a text (None: as the class has it), and whether before each part of it."""

    add: bool | None = None
    each: bool = False


def llama_backend(vocabulary: Vocabulary, merges: Merges, prefix: Prefix = Prefix()) -> Tokenizer:
    """Returns SentencePiece's BPE as `LlamaTokenizer` has it: spaces as `▁`, bytes for unknown letters."""
    add = prefix.add is not False
    scheme = ("always" if prefix.each else "first") if add else "never"
    backend = Tokenizer(BPE(vocab=dict(vocabulary), merges=list(merges), fuse_unk=True, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)
    steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, *([decoders.Strip(content=" ", left=1)] if add else [])])
    return backend


def gpt2_backend(vocabulary: Vocabulary, merges: Merges, prefix: Prefix = Prefix()) -> Tokenizer:
    """Returns byte-level BPE as `GPT2Tokenizer` has it."""
    backend = Tokenizer(_byte_bpe(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(prefix.add))
    backend.decoder = decoders.ByteLevel()
    return backend


def qwen2_backend(vocabulary: Vocabulary, merges: Merges, prefix: Prefix = Prefix()) -> Tokenizer:
    """Returns byte-level BPE as `Qwen2Tokenizer` has it: characters composed first, texts split by its own rule."""
    backend = Tokenizer(_byte_bpe(vocabulary, merges))
    backend.decoder = decoders.ByteLevel()
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = split_then_bytes(QWEN2_SPLIT, bool(prefix.add))
    return backend


def split_then_bytes(split: str, add_prefix_space: bool = False) -> Any:
    """Returns the pre-tokenizer that splits a text by a regular expression, and writes the parts' bytes as letters."""
    by_rule = pre_tokenizers.Split(Regex(split), behavior="isolated")
    return pre_tokenizers.Sequence(
        [by_rule, pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=False)]
    )


def _byte_bpe(vocabulary: Vocabulary, merges: Merges) -> Any:
    return BPE(
        vocab=dict(vocabulary),
        merges=list(merges),
        continuing_subword_prefix="",
        end_of_word_suffix="",
        fuse_unk=False,
    )
