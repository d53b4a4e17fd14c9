"""Holds a tokenizer of ours against transformers' own: definition, special tokens, ids, offsets and texts."""

from __future__ import annotations

from typing import Any

from tests.support.trainables.real_tokenizers import TEXTS
from trainables.base_model.tokenization.text_tokenizer import TextTokenizer


def agree(ours: TextTokenizer | None, theirs: Any) -> None:
    """Definitions but for the post-processor, which is never used, special tokens, ids and texts are the same."""
    assert ours is not None
    theirs(TEXTS[0])  # the first text takes truncation and padding off
    ours.backend.post_processor = theirs.backend_tokenizer.post_processor = None
    assert ours.backend.to_str() == theirs.backend_tokenizer.to_str()
    for name in ("bos_token", "eos_token", "unk_token"):
        assert getattr(ours, name) == getattr(theirs, name)
        assert getattr(ours, f"{name}_id") == getattr(theirs, f"{name}_id")
    texts = [*TEXTS[:3], "a <s> b </s> <x><pad> c ."]
    for markup in (False, True):
        called = theirs(texts, split_special_tokens=not markup, return_offsets_mapping=True)
        found = ours.encode(texts, markup)
        assert [one.ids for one in found] == called["input_ids"]
        assert [one.offsets for one in found] == called["offset_mapping"]
        for one in found:
            for skip in (False, True):
                assert ours.decode(one.ids, skip) == theirs.decode(one.ids, skip_special_tokens=skip)
