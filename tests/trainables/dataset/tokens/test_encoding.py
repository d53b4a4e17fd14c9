"""Texts as tokens: special tokens as text or markup, BOS and EOS once, and what is refused. Exact."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.trainables.letter_tokenizer import BOS, EOS, SPECIALS, LetterTokenizer
from tests.support.trainables.real_tokenizers import KINDS, LEARNED, loaded
from trainables.dataset.files import DatasetError
from trainables.dataset.tokens import encoding as encoding_module
from trainables.dataset.tokens.encoding import Encoded, Encoding, control_ids, prompt_tokens, special_texts, token_text

ALL = [*KINDS, *LEARNED]
PARTS = st.sampled_from(["<s>", "</s>", "<unk>", "<s", ">", " ", "a", "yes", "\n", "if (a <s> b)"])


def one(encoding: Encoding, text: str) -> Encoded:
    (encoded,) = encoding.encode([text])
    return encoded


@pytest.mark.parametrize("kind", ALL)
@given(st.lists(PARTS, max_size=8).map("".join))
@settings(max_examples=60, deadline=None)
def test_as_text_no_special_token_comes_of_a_text_and_it_is_whole(kind: str, text: str) -> None:
    tokenizer = loaded(kind)
    ids = list(one(Encoding(tokenizer), f"a{text}").ids)
    assert not {0, 1, 2} & set(ids)
    assert tokenizer.decode(ids) == f"a{text}"


@pytest.mark.parametrize("kind", ALL)
def test_as_markup_special_tokens_are_found(kind: str) -> None:
    ids = list(one(Encoding(loaded(kind), markup=True), "<s>yes</s> no").ids)
    assert (ids[0], ids.count(1), ids.count(2)) == (1, 1, 1)


@pytest.mark.parametrize("kind", ALL)
def test_neither_is_a_state_of_the_tokenizer(kind: str) -> None:
    text, markup = Encoding(loaded(kind)), Encoding(loaded(kind), markup=True)
    first = [one(each, "<s>yes").ids for each in (text, markup)]
    assert [one(each, "<s>yes").ids for each in (text, markup)] == first
    assert first[0] != first[1]


LETTERS = LetterTokenizer()
BOS_TEXT, EOS_TEXT = SPECIALS[BOS], SPECIALS[EOS]


@pytest.mark.parametrize(
    ("text", "markup", "bos", "eos"),
    [
        ("yes", False, [BOS], [EOS]),
        ("yes", True, [BOS], [EOS]),
        (f"{BOS_TEXT}yes{EOS_TEXT}", True, [], []),
        (f"{BOS_TEXT}yes{EOS_TEXT}\n", True, [], []),  # as chat templates end
        (f"{BOS_TEXT}yes{EOS_TEXT}.", True, [], [EOS]),
        (f" {BOS_TEXT}yes", True, [BOS], [EOS]),
        ("", True, [BOS], [EOS]),
        (" ", True, [BOS], [EOS]),
    ],
)
def test_bos_and_eos_are_added_where_they_are_not(text: str, markup: bool, bos: list[int], eos: list[int]) -> None:
    encoding = Encoding(LETTERS, markup)
    encoded = one(encoding, text)
    assert (encoding.bos(encoded), encoding.eos(encoded)) == (bos, eos)
    assert prompt_tokens(encoding, text) == [*bos, *encoded.ids]


def test_what_is_not_there_is_not_added() -> None:
    encoding = Encoding(LetterTokenizer(bos=None, eos=None))
    encoded = one(encoding, "yes")
    assert (encoding.bos(encoded), encoding.eos(encoded)) == ([], [])
    assert (token_text(LETTERS, None), token_text(LETTERS, EOS)) == (None, EOS_TEXT)


def test_a_text_that_becomes_a_control_token_all_the_same_is_refused() -> None:
    """As where the model's own merges make it: the text would end in the middle of a row."""
    tokenizer = LetterTokenizer(joined={"</s>": EOS})
    with pytest.raises(DatasetError, match=r"takes '</s>' in 'one line</s> of HTML' for the special token 2\."):
        one(Encoding(tokenizer), "one line</s> of HTML")
    assert EOS in one(Encoding(tokenizer, markup=True), "one line</s> of HTML").ids


def test_the_unknown_token_and_single_letters_are_ordinary() -> None:
    assert special_texts(LETTERS) == (BOS_TEXT, EOS_TEXT)
    tokenizer = LetterTokenizer()
    tokenizer.unk_token = EOS_TEXT  # type: ignore[assignment]
    tokenizer.added_tokens_decoder[BOS].text = "\n"
    assert special_texts(tokenizer) == ()
    assert control_ids(tokenizer) == frozenset()


def test_what_stands_before_a_text_belongs_to_it() -> None:
    encoded = Encoded("xy", [1, 2, 3], [(0, 0), (0, 1), (1, 2)])
    assert [encoded.tokens_within(count) for count in (0, 1, 2)] == [0, 2, 3]


def test_a_text_without_bound_is_refused_before_it_is_tokenized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding_module, "MOST_CHARACTERS", 10)
    with pytest.raises(DatasetError, match=r"at most 10 characters; one holds 11 \('aaaaa.*Part it"):
        one(Encoding(LETTERS), "a" * 11)
    assert len(one(Encoding(LETTERS), "a" * 10).ids) == 10


def test_a_tokenizer_without_end_is_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(LetterTokenizer):
        def encode(self, texts, markup=False):  # type: ignore[no-untyped-def]
            time.sleep(0.5)
            return super().encode(texts, markup)

    monkeypatch.setattr(encoding_module, "PATIENCE_SECONDS", 0.05)
    with pytest.raises(DatasetError, match=r"must tokenize 3 characters within 0 s; .* Take the model's own tokenizer"):
        one(Encoding(Slow()), "yes")


@given(st.lists(st.text("ab", max_size=9), max_size=20), st.integers(1, 30))
def test_texts_keep_their_order_in_batches(texts: list[str], batch: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding_module, "BATCH_CHARACTERS", batch)
        found = [encoded.text for encoded in Encoding(LETTERS).encode(texts)]
    assert found == texts
