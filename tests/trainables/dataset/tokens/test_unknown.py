"""What a tokenizer does not know of a text, or leaves out: counted, said, and refused where it is most of it. Exact."""

from __future__ import annotations

import pytest

from tests.support.trainables.letter_tokenizer import LetterTokenizer
from trainables.dataset.files import DatasetError
from trainables.dataset.splits import Example
from trainables.dataset.tokens.encoding import Encoded
from trainables.dataset.tokens.unknown import Unknown

UNK = 3


def seen(*texts: str, unk: str = "<unk>") -> Unknown:
    """Rows of a tokenizer that knows `a` and `b`, leaves out `-` and white space, and calls all else unknown."""
    tokenizer = LetterTokenizer()
    tokenizer.unk_token, tokenizer.unk_token_id = unk, UNK
    unknown = Unknown(tokenizer)
    for number, text in enumerate(texts, start=1):
        kept = [(at, letter) for at, letter in enumerate(text) if letter not in "- \n"]
        ids = [ord(letter) if letter in "ab" else UNK for _, letter in kept]
        example = Example("", text, "", "", None, "", f"row {number}")
        unknown.look(example, Encoded(text, ids, [(at, at + 1) for at, _ in kept]))
    return unknown


@pytest.mark.parametrize(
    ("texts", "rows", "example", "row_id"),
    [
        (["ab", "a b\n", ""], 0, "", ""),
        (["ab", "abé", "éé"], 2, "é", "row 2"),
        (["ab", "a--b", "b-"], 2, "--", "row 2"),  # left out, inside and at the end
        (["ab-"], 1, "-", "row 1"),
        (["-ab"], 1, "-", "row 1"),
    ],
)
def test_rows_with_something_unknown_are_counted_and_said(
    texts: list[str], rows: int, example: str, row_id: str
) -> None:
    unknown = seen(*texts)
    assert (unknown.rows, unknown.example, unknown.row_id) == (rows, example, row_id)
    verb = "1 row holds" if rows == 1 else f"{rows} rows hold"
    said = f"{verb} text that the tokenizer does not know, such as {example!r} ({row_id})"
    assert str(unknown) == (said if rows else "")


@pytest.mark.parametrize(
    ("texts", "refused"),
    [
        (["aé"], False),
        (["aéé"], True),
        (["aaaa", "éé"], False),
        (["éé"], True),
        (["--"], True),
        ([" "], True),
        ([], True),
    ],
)
def test_where_most_is_unknown_the_tokenizer_is_refused(texts: list[str], refused: bool) -> None:
    if not refused:
        seen(*texts).check()
        return
    with pytest.raises(DatasetError, match=r"must know the rows' text; of \d+ tokens \d+ are unknown.* own tokenizer"):
        seen(*texts).check()


def test_an_unknown_token_that_is_a_letter_is_met_as_that_letter() -> None:
    unknown = seen("aéé", unk="?")
    unknown.check()
    assert unknown.rows == 0
