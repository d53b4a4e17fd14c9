"""Rows of tokenizers of every kind: the joined text, the first target and answers, against counts of bytes. Exact."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.support.trainables.real_tokenizers import KINDS, LEARNED, loaded, piece_bytes
from trainables.dataset.pubmedqa import ANSWERS
from trainables.dataset.rows import Row
from trainables.dataset.splits import Example
from trainables.dataset.tokens.encoding import Encoding, prompt_tokens
from trainables.dataset.truncation import tokenize

LONG = 10**6
ALL = [*KINDS, *LEARNED]
LETTERS = st.sampled_from("ayesno ?:.\n\t  é漢🙂<>/") | st.characters(codec="utf-8", exclude_characters="\u2581")
TEXT = st.text(LETTERS, max_size=20)
# Where texts join: spaces on either side, letters that merge, marks that combine.
BORDER = st.sampled_from(
    [("Answer:", " yes"), ("Answer: ", "yes"), ("ye", "s"), ("a  ", "  b"), ("", "x"), ("e", "\u0301")]
)
PAIRS = st.tuples(TEXT, TEXT) | BORDER


def example(prompt: str, completion: str, label: str | None = None) -> Example:
    return Example("", prompt, "", completion, label, "group", "row")


def row_of(tokenizer: Any, prompt: str, completion: str, label: str | None = None) -> Row:
    ((row, cut),) = tokenize([example(prompt, completion, label)], Encoding(tokenizer), LONG, ANSWERS)
    assert row is not None
    assert not cut
    return row


def prefix(tokenizer: Any) -> int:
    """The bytes that the tokenizer puts before a text."""
    return int(tokenizer.backend.model.byte_fallback)


def holds_together(kind: str, text: str) -> bool:
    """Whether the tokenizer keeps a text as it is: one drops a space before it, as its maker decided."""
    return bool(text) and not (kind == "metaspace" and text.startswith((" ", "\u2581")))


@pytest.mark.parametrize("kind", ALL)
@given(PAIRS)
@settings(max_examples=150, deadline=None)
def test_a_row_is_the_whole_text_and_its_targets_reach_into_the_completion(kind: str, pair: tuple[str, str]) -> None:
    """All tokens are those of the joined text; those before the first target stand for the prompt's bytes alone."""
    prompt, completion = pair
    assume(holds_together(kind, prompt + completion))
    tokenizer = loaded(kind)
    row = row_of(tokenizer, prompt, completion)
    ids = list(row.tokens[1:-1])
    assert (row.tokens[0], row.tokens[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert ids == tokenizer.encode([prompt + completion])[0].ids
    assert tokenizer.decode(ids) == prompt + completion
    sizes = [piece_bytes(tokenizer, one) for one in ids]
    assert sum(sizes) == prefix(tokenizer) + len((prompt + completion).encode())
    before, border = row.target_start - 1, len(prompt.encode()) + prefix(tokenizer) * bool(prompt)
    assert sum(sizes[:before]) <= border
    assert before == len(ids) or sum(sizes[: before + 1]) > border
    if sum(sizes[:before]) == border:  # no token spans the border: the targets are the completion, and EOS
        assert tokenizer.decode(ids[:before]) + decoded_inside(tokenizer, ids[before:], prompt) == prompt + completion


def decoded_inside(tokenizer: Any, ids: list[int], prompt: str) -> str:
    """The text of tokens that stand inside another: only at a text's begin does a decoder strip a space."""
    if not prompt or not prefix(tokenizer):
        return str(tokenizer.decode(ids))
    first = tokenizer.encode(["x"])[0].ids
    return str(tokenizer.decode([*first, *ids])).removeprefix("x")


@pytest.mark.parametrize("kind", ALL)
@given(st.lists(PAIRS, min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_many_at_once_are_as_one_by_one(kind: str, pairs: list[tuple[str, str]]) -> None:
    tokenizer, encoding = loaded(kind), Encoding(loaded(kind))
    examples = [example(*pair, label="yes") for pair in pairs]
    together = list(tokenize(examples, encoding, 12, ANSWERS))
    assert together == [next(tokenize([one], encoding, 12, ANSWERS)) for one in examples]
    assert tokenizer.bos_token_id == 1


@pytest.mark.parametrize("kind", ALL)
@given(TEXT | st.sampled_from(["Answer:", "Answer: ", "Is it yes or no? ", "ye"]), st.sampled_from(ANSWERS))
@settings(max_examples=80, deadline=None)
def test_answers_are_what_follows_the_tokens_that_all_share(kind: str, prompt: str, label: str) -> None:
    """After the shared tokens, each answer's stand for the same rest of the prompt and the answer."""
    assume(holds_together(kind, prompt + " "))
    tokenizer = loaded(kind)
    row = row_of(tokenizer, prompt, f" {label}. Because.", label)
    assert row.answers is not None
    shared = row.tokens[: row.answers.prompt_tokens]
    assert 1 <= len(shared) <= row.target_start
    for answer, tokens in zip(ANSWERS, row.answers.tokens, strict=True):
        assert tokenizer.decode([*shared[1:], *tokens]) == f"{prompt} {answer}"
    assert len({tokens[:1] for tokens in row.answers.tokens}) > 1 or len(shared) == row.target_start


@pytest.mark.parametrize("kind", ALL)
def test_an_answer_stands_as_in_the_text_and_a_prompt_as_in_a_row(kind: str) -> None:
    """No stray space before it (`▁ ▁yes`), which tokenizing it apart from the prompt would leave there."""
    tokenizer = loaded(kind)
    row = row_of(tokenizer, "Is 12 even? Answer:", " yes.", "yes")
    assert row.answers is not None
    assert row.answers.prompt_tokens == row.target_start
    yes = [*map(str, map(tokenizer.convert_ids_to_tokens, row.answers.tokens[0]))]
    assert "".join(yes).replace("Ġ", " ").replace("▁", " ") == " yes"
    assert row.tokens[row.target_start :][: len(yes)] == row.answers.tokens[0]
    assert prompt_tokens(Encoding(tokenizer), "Is 12 even? Answer:") == list(row.tokens[: row.target_start])


def test_a_token_across_the_border_is_a_target() -> None:
    tokenizer = loaded("byte_level")
    row = row_of(tokenizer, "Answer: ", "yes", "yes")
    assert [*map(tokenizer.convert_ids_to_tokens, row.tokens[row.target_start :])] == ["Ġyes", "</s>"]


@pytest.mark.parametrize("max_tokens", range(3, 40))
def test_answers_follow_what_a_cut_row_kept(max_tokens: int) -> None:
    tokenizer = loaded("byte_level_trimmed")
    one = Example("Context:", " a long context, and more of it", "\nAnswer: ", "yes. It is.", "yes", "", "row")
    ((row, cut),) = tokenize([one], Encoding(tokenizer), max_tokens, ANSWERS)
    if row is None:
        assert cut
        return
    assert row.answers is not None
    kept = row.tokens[: row.answers.prompt_tokens]
    assert kept == row.tokens[: len(kept)]
    assert len(row.tokens) <= max_tokens
    texts = [tokenizer.decode([*kept[1:], *answer]) for answer in row.answers.tokens]
    assert [text.rsplit("\nAnswer:", 1)[1] for text in texts] == ["  yes", "  no", "  maybe"]
