"""The truncation rule: the context is cut first, from its start, then the target. All comparisons are exact."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.trainables.letter_tokenizer import BOS, EOS, LetterTokenizer
from trainables.dataset.rows import Answers, Row
from trainables.dataset.splits import Example
from trainables.dataset.tokens.encoding import Encoding
from trainables.dataset.truncation import tokenize


def _example(head: str, context: str, tail: str, completion: str) -> Example:
    return Example(head, context, tail, completion, "yes", "group", "row")


def _row(example: Example, tokenizer: LetterTokenizer, max_tokens: int) -> tuple[Row | None, bool]:
    (found,) = tokenize([example], Encoding(tokenizer), max_tokens)
    return found


def _text(tokens: tuple[int, ...]) -> str:
    return "".join({BOS: "<", EOS: ">"}.get(token) or chr(token) for token in tokens)


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
def test_the_context_is_cut_first_and_from_its_start(max_tokens: int, text: str, target: str, truncated: bool) -> None:
    row, cut = _row(_example("h:", "context", "?q=", "yes"), LetterTokenizer(), max_tokens)
    assert row is not None
    assert _text(row.tokens) == text
    assert _text(row.tokens[row.target_start :]) == target
    assert row.target_tokens == len(target)
    assert cut is truncated
    assert row.label == "yes"


def test_no_target_left_is_no_row() -> None:
    assert _row(_example("h:", "context", "?q=", "yes"), LetterTokenizer(), 6) == (None, True)


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
    row, _ = _row(_example("", prompt, "", "done"), LetterTokenizer(bos=bos), max_tokens)
    assert (row is None) == (text is None)
    if row is not None:
        assert (_text(row.tokens), row.target_start) == (text, start)


TEXT = st.text("abc", max_size=12)


@given(TEXT, TEXT, TEXT, TEXT, st.integers(1, 40), st.booleans(), st.booleans())
def test_truncation_spares_question_and_target_while_context_remains(
    head: str, context: str, tail: str, completion: str, max_tokens: int, bos: bool, eos: bool
) -> None:
    tokenizer = LetterTokenizer(BOS if bos else None, EOS if eos else None)
    row, truncated = _row(_example(head, context, tail, completion), tokenizer, max_tokens)
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


def _with_answers(example: Example, joined: dict[str, int], max_tokens: int = 99) -> Row:
    labels = ("yes", "no")
    ((row, _),) = tokenize([example], Encoding(LetterTokenizer(joined=joined)), max_tokens, labels)
    assert row is not None
    assert row.answers is not None
    return row


@pytest.mark.parametrize("completion", [" yes.", " no."])
def test_where_one_answer_joins_with_the_prompt_all_begin_before_it(completion: str) -> None:
    """`: y` is one token, so that `:` is the answers' in every row, of whichever label."""
    row = _with_answers(_example("", "q:", "", completion), {": y": 900})
    assert row.answers == Answers(2, ((900, ord("e"), ord("s")), tuple(map(ord, ": no"))))
    assert _text(row.tokens[: row.answers.prompt_tokens]) == "<q"
    assert row.target_start == (2 if completion == " yes." else 3)


def test_answers_that_join_with_a_context_that_was_cut_begin_before_it() -> None:
    row = _with_answers(_example("h", "cccc", "", " no"), {"cccc yes": 900}, max_tokens=8)
    assert _text(row.tokens) == "<hcc no>"
    assert row.answers == Answers(2, ((900,), tuple(map(ord, "cccc no"))))


def test_answers_without_a_token_before_them_are_not_asked() -> None:
    ((row, _),) = tokenize([_example("", "", "", "x yes")], Encoding(LetterTokenizer(bos=None)), 99, ("yes", "no"))
    assert row is not None
    assert row.answers is None
