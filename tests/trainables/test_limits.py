"""Shared sizes: closed forms of what is derived from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.trial_config import MODULE_NAMES
from tests.support.trainables.memory_cases import LLAMA_3
from trainables import limits
from trainables.limits import (
    ABSMAX_BLOCK,
    CAPPED_SCORES_BYTES,
    FP32_BYTES,
    LOGITS_CHUNK_BYTES,
    MOST_PASS_TOKENS,
    NF4_BLOCK,
    NF4_VALUE_BYTES,
    TRAINING_BYTES,
    USUAL_PASS_TOKENS,
    capped_score_part,
    logits_chunk_rows,
)
from trainables.memory.frozen_linears import NF4_TABLES_BYTES, linear_bytes
from trainables.memory.setting import AdapterLoad, MemorySetting
from trainables.memory.weights import ModelPart, state_components


@given(st.integers(1, 2**22), st.sampled_from([2, 4]))
def test_a_chunk_of_logits_fills_its_bytes_in_rows_of_64(vocabulary: int, number_bytes: int) -> None:
    """Exact, against counting up: the largest multiple of 64 that fits; under 64 what fits, and 16 at the least."""
    rows, row_bytes = logits_chunk_rows(vocabulary, number_bytes), vocabulary * number_bytes
    if 64 * row_bytes <= LOGITS_CHUNK_BYTES:
        assert rows % 64 == 0
        assert rows * row_bytes <= LOGITS_CHUNK_BYTES < (rows + 64) * row_bytes
    elif 16 * row_bytes <= LOGITS_CHUNK_BYTES:
        assert rows * row_bytes <= LOGITS_CHUNK_BYTES < (rows + 1) * row_bytes
    else:
        assert rows == 16


@pytest.mark.parametrize(
    ("vocabulary", "number_bytes", "rows"),
    [(128_256, 2, 256), (128_256, 4, 128), (32_000, 2, 1024), (512, 4, 32_768), (10**6, 4, 16), (400_000, 4, 41),
     (10**9, 4, 16)],
)  # fmt: skip
def test_rows_of_known_vocabularies(vocabulary: int, number_bytes: int, rows: int) -> None:
    """Of Llama 3 in 16 and 32 bits, Llama 2, a small model, and vocabularies larger than any."""
    assert logits_chunk_rows(vocabulary, number_bytes) == rows


def test_the_chunk_is_read_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOGITS_CHUNK_BYTES", 100 * 4 * 10)
    assert logits_chunk_rows(10, 4) == 64


def test_a_trainable_number_takes_what_its_state_takes() -> None:
    load = AdapterLoad(16, MODULE_NAMES, False, 1, 1, 1)
    numbers = LLAMA_3.adapter_parameters(16, MODULE_NAMES)
    assert sum(state_components(LLAMA_3, [load], ModelPart(LLAMA_3.layers)).values()) == TRAINING_BYTES * numbers


def test_an_nf4_value_takes_what_a_weight_of_whole_blocks_takes() -> None:
    """Dettmers et al. 2023, section 3: 4 bits and 0.127 bits of scales."""
    values = 5 * NF4_BLOCK * ABSMAX_BLOCK
    assert linear_bytes(values, MemorySetting("nf4", "fp16")) - NF4_TABLES_BYTES == NF4_VALUE_BYTES * values
    assert pytest.approx(4.127, abs=5e-4) == 8 * NF4_VALUE_BYTES


@given(st.integers(1, 64), st.integers(1, 2**17))
def test_capped_scores_of_whole_rows_or_of_some_queries_fill_their_bytes(heads: int, tokens: int) -> None:
    """Exact: one row or query more would not fit; more than one row only whole, and one query whatever it takes."""
    rows, queries = capped_score_part(heads, tokens)
    row_bytes = FP32_BYTES * heads * tokens**2
    if row_bytes <= CAPPED_SCORES_BYTES:
        assert queries == tokens
        assert rows * row_bytes <= CAPPED_SCORES_BYTES < (rows + 1) * row_bytes
    else:
        assert rows == 1
        of_query = FP32_BYTES * heads * tokens
        assert queries == 1 or queries * of_query <= CAPPED_SCORES_BYTES
        assert (queries + 1) * of_query > CAPPED_SCORES_BYTES


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_the_usual_pass_is_no_larger_than_the_largest(kind: str) -> None:
    assert USUAL_PASS_TOKENS[kind] <= MOST_PASS_TOKENS[kind]
