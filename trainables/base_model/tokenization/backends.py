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
class Options:
    """What files ask of a class.

    `add_prefix`: whether a space is put before a text (None: as the class has it), `prefix_each`: whether before each
    part of it. `unknown` is the token for letters that the vocabulary lacks.
    """

    add_prefix: bool | None = None
    prefix_each: bool = False
    unknown: str | None = None


def llama_backend(vocabulary: Vocabulary, merges: Merges, options: Options = Options()) -> Tokenizer:
    """Returns SentencePiece's BPE as `LlamaTokenizer` has it: spaces as `▁`, bytes for unknown letters."""
    add = options.add_prefix is not False
    scheme = ("always" if options.prefix_each else "first") if add else "never"
    backend = Tokenizer(BPE(vocab=dict(vocabulary), merges=list(merges), fuse_unk=True, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)
    steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, *([decoders.Strip(content=" ", left=1)] if add else [])])
    return backend


def gemma_backend(vocabulary: Vocabulary, merges: Merges, options: Options = Options()) -> Tokenizer:
    """Returns SentencePiece's BPE as `GemmaTokenizer` has it: spaces as `▁` and kept, bytes for unknown letters."""
    backend = Tokenizer(
        BPE(
            vocab=dict(vocabulary), merges=list(merges), fuse_unk=True, unk_token=str(options.unknown),
            byte_fallback=True,
        )
    )  # fmt: skip
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(pattern=" ", behavior="merged_with_previous", invert=False)
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return backend


def gpt2_backend(vocabulary: Vocabulary, merges: Merges, options: Options = Options()) -> Tokenizer:
    """Returns byte-level BPE as `GPT2Tokenizer` has it."""
    backend = Tokenizer(_byte_bpe(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(options.add_prefix))
    backend.decoder = decoders.ByteLevel()
    return backend


def qwen2_backend(vocabulary: Vocabulary, merges: Merges, options: Options = Options()) -> Tokenizer:
    """Returns byte-level BPE as `Qwen2Tokenizer` has it: characters composed first, texts split by its own rule."""
    backend = Tokenizer(_byte_bpe(vocabulary, merges))
    backend.decoder = decoders.ByteLevel()
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = split_then_bytes(QWEN2_SPLIT, bool(options.add_prefix))
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
