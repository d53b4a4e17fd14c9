"""Small tokenizers of every kind that Llama-like models come with, trained here, and the learned models' own."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.places import SHARED
from trainables.base_model.tokenizer import load_tokenizer
from trainables.settings import BaseModelSettings

LEARNED = tuple(
    f"models/{name}"
    for name in ("stories15M", "stories260K")
    if (SHARED / "models" / name / "tokenizer.json").is_file()
)
TEXTS = [
    "Is 12 even? Answer: yes, no or maybe. yes no maybe",
    "Once upon a time, there was a little girl named Lily.\n\tdef f(x):\n    return x  # naïve café 🙂",
    "<i>struck out</i> and <b>bold</b>; 漢字 and ünïcödé: 3.14159",
] * 10
KINDS = ("byte_level", "byte_level_trimmed", "metaspace", "prepend")


def trained(kind: str) -> Any:
    """A fast tokenizer of one of `KINDS`, with `<s>` and `</s>`, as a model's files would give it."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = _byte_level(kind) if kind.startswith("byte_level") else _sentencepiece(kind)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _byte_level(kind: str) -> Any:
    """As GPT-2, Llama 3 and Qwen have it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if kind == "byte_level_trimmed":
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return _train(tokenizer, pre_tokenizers.ByteLevel.alphabet())


def _sentencepiece(kind: str) -> Any:
    """As Llama 2 and Mistral have it, converted: a space before the text, bytes for what is not in the vocabulary."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    words = Tokenizer(models.BPE(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    values = json.loads(_train(words, []).to_str())
    vocabulary = values["model"]["vocab"]
    vocabulary |= {f"<0x{number:02X}>": len(vocabulary) + number for number in range(256)}
    values["model"] |= {"fuse_unk": True, "byte_fallback": True}
    tokenizer = Tokenizer.from_str(json.dumps({**values, "pre_tokenizer": None}))
    if kind == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    strip = decoders.Strip(" ", 1, 0)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip])
    return tokenizer


def _train(tokenizer: Any, letters: list[str]) -> Any:
    from tokenizers import trainers

    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=letters, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


@cache
def loaded(name: str) -> Any:
    """One of `KINDS` after a way through files, or one of `LEARNED`, as a study loads it."""
    if name in LEARNED:
        return load_tokenizer(BaseModelSettings(str(SHARED / name)))
    with tempfile.TemporaryDirectory() as folder:
        trained(name).save_pretrained(folder)
        (Path(folder) / "config.json").write_text(json.dumps({"model_type": "llama"}))
        return load_tokenizer(BaseModelSettings(folder))


def piece_bytes(tokenizer: Any, number: int) -> int:
    """Counts the bytes that a token writes: an oracle beside the tokenizer's own offsets."""
    piece = tokenizer.convert_ids_to_tokens(number)
    if tokenizer.backend.model.byte_fallback:
        return 1 if piece.startswith("<0x") else len(piece.replace("▁", " ").encode())
    return len(piece)  # a letter a byte
