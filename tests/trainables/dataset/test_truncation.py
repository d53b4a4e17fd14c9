"""The truncation rule: the context is cut first, from its start, then the target. All comparisons are exact."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.trainables.letter_tokenizer import BOS, EOS, LetterTokenizer
from trainables.dataset.splits import Example
from trainables.dataset.truncation import tokenize


def _example(head: str, context: str, tail: str, completion: str) -> Example:
    return Example(head, context, tail, completion, "yes", "group", "row")


def _text(tokens: tuple[int, ...]) -> str:
    return "".join({BOS: "<", EOS: ">"}.get(token) or chr(token) for token in tokens)


@pytest.mark.parametrize("is_fast", [True, False])
@pytest.mark.parametrize(
    ("max_tokens", "text", "target", "truncated"),
    [
        (17, "<h:context?q=yes>", "yes>", False),
        (16, "<h:ontext?q=yes>", "yes>", True),
        (10, "<h:?q=yes>", "yes>", True),
        (9, "<h:?q=yes", "yes", True),
        (7, "<h:?q=y", "y", True),
    ],
)
def test_the_context_is_cut_first_and_from_its_start(
    max_tokens: int, text: str, target: str, truncated: bool, is_fast: bool
) -> None:
    row, cut = tokenize(_example("h:", "context", "?q=", "yes"), LetterTokenizer(is_fast=is_fast), max_tokens)
    assert row is not None
    assert _text(row.tokens) == text
    assert _text(row.tokens[row.target_start :]) == target
    assert row.target_tokens == len(target)
    assert cut is truncated
    assert row.label == "yes"


def test_no_target_left_is_no_row() -> None:
    assert tokenize(_example("h:", "context", "?q=", "yes"), LetterTokenizer(), 6) == (None, True)


@pytest.mark.parametrize(
    ("bos", "prompt", "max_tokens", "text", "start"),
    [
        (BOS, "prompt", 99, "<promptdone>", 7),
        (BOS, "prompt", 8, "<ptdone>", 3),
        (BOS, "prompt", 6, "<done>", 1),
        (BOS, "prompt", 4, "<don", 1),
        (None, "prompt", 7, "ptdone>", 2),
        (None, "prompt", 5, "tdone", 1),
        (None, "", 99, "done>", 1),
        (None, "", 1, None, 0),
    ],
)
def test_prompt_and_completion(bos: int | None, prompt: str, max_tokens: int, text: str | None, start: int) -> None:
    row, _ = tokenize(_example("", prompt, "", "done"), LetterTokenizer(bos=bos), max_tokens)
    assert (row is None) == (text is None)
    if row is not None:
        assert (_text(row.tokens), row.target_start) == (text, start)


TEXT = st.text("abc", max_size=12)


@given(TEXT, TEXT, TEXT, TEXT, st.integers(1, 40), st.booleans(), st.booleans(), st.booleans())
def test_truncation_spares_question_and_target_while_context_remains(
    head: str, context: str, tail: str, completion: str, max_tokens: int, bos: bool, eos: bool, is_fast: bool
) -> None:
    tokenizer = LetterTokenizer(BOS if bos else None, EOS if eos else None, is_fast)
    row, truncated = tokenize(_example(head, context, tail, completion), tokenizer, max_tokens)
    begin, end = "<" * bos + head, completion + ">" * eos
    whole = begin + context + tail + end
    assert truncated == (len(whole) > max_tokens)
    # The oracle: try every length of the context, longest first.
    shortest = 0 if begin or tail else min(1, len(context))
    kept = [context[len(context) - n :] for n in range(len(context), shortest - 1, -1)]
    prompt = next(
        (begin + c + tail for c in kept if len(begin + c + tail + end) <= max_tokens), begin + kept[-1] + tail
    )
    expected, start = (prompt + end)[:max_tokens], max(1, len(prompt))
    if start >= len(expected):
        assert row is None
    else:
        assert row is not None
        assert (_text(row.tokens), row.target_start) == (expected, start)
