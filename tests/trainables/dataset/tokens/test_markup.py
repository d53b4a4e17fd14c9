"""Whether special tokens' texts are text or markup: decided over all rows, never without a word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.trainables.letter_tokenizer import BOS, EOS, SPECIALS, LetterTokenizer
from trainables.dataset.files import DatasetError
from trainables.dataset.splits import Example
from trainables.dataset.tokens.markup import Markup, find_markup
from trainables.settings import SpecialTokens

B, E = SPECIALS[BOS], SPECIALS[EOS]


def examples(*rows: tuple[str, str]) -> list[Example]:
    return [Example("", prompt, "", answer, None, "", f"row {n}") for n, (prompt, answer) in enumerate(rows, start=1)]


def found(*rows: tuple[str, str], asked: SpecialTokens = "auto") -> Markup:
    return find_markup(examples(*rows), LetterTokenizer(), asked)


PLAIN, HTML = ("Is it?", " yes"), (f"a {B}struck{E} b", " yes")


@pytest.mark.parametrize(
    ("rows", "markup", "holding"),
    [
        ([PLAIN], False, 0),
        ([], False, 0),
        ([HTML], False, 1),  # inside, in every row: text
        ([PLAIN, HTML], False, 1),
        ([(f"{B}Is it?", " yes")], True, 1),
        ([("Is it?", f" yes{E}")], True, 1),
        ([("Is it?", f" yes{E}\n")], True, 1),
        ([(f"{B}Is it?", f" yes{E}"), (f"{B}Is it?", " no")], True, 2),
        ([(f"{B}Is it?", " yes"), PLAIN], False, 1),  # half of them
        ([("", f"{B}")], True, 1),
    ],
)
def test_auto_is_markup_where_a_chat_template_wrote_every_row(
    rows: list[tuple[str, str]], markup: bool, holding: int
) -> None:
    one = found(*rows)
    assert (one.markup, one.rows) == (markup, holding)
    assert found(*rows, asked="text").markup is False
    assert found(*rows, asked="markup").markup is True
    assert found(*rows, asked="text").rows == found(*rows, asked="markup").rows == holding
    assert bool(str(one)) == bool(holding)  # what is there is said


def test_most_but_not_all_is_asked_for() -> None:
    rows = [(f"{B}Is it?", " yes"), (f"{B}Is it?", " no"), PLAIN]
    rule = r"must be text or markup where most rows, but not all, .*; 2 of 3 do, and row 3 does not\."
    with pytest.raises(DatasetError, match=rule):
        found(*rows)
    assert found(*rows, asked="markup").markup
    assert not found(*rows, asked="text").markup


def test_it_is_said_how_they_are_read_and_how_to_have_it_otherwise() -> None:
    assert str(found(PLAIN, HTML)) == (
        f"1 row hold special tokens’ texts, such as {B!r} (row 2); they are read as text "
        "(dataset.special_tokens: markup reads them as those tokens)"
    ).replace("hold", "holds")
    said = str(found((f"{B}Is it?", " yes")))
    assert "they are read as those tokens: every row begins or ends with one (dataset.special_tokens: text" in said
    assert "every row" not in str(found((f"{B}Is it?", " yes"), asked="markup"))


@given(st.lists(st.tuples(st.text("ab", max_size=3), st.sampled_from(["", B, E, "x"]), st.text("ab", max_size=3))))
def test_rows_that_hold_one_are_counted(parts: list[tuple[str, str, str]]) -> None:
    rows = [("p" + "".join(part), "c") for part in parts]
    assert found(*rows).rows == sum(part[1] in (B, E) for part in parts)
