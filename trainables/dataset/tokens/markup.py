"""Decides whether special tokens' texts in the data are text or markup: `dataset.special_tokens`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainables.dataset.files import DatasetError
from trainables.dataset.rows import Tokenizer
from trainables.dataset.splits import Example
from trainables.dataset.tokens.encoding import special_texts
from trainables.settings import SpecialTokens


@dataclass(frozen=True)
class Markup:
    """How special tokens' texts are read, and how many of the rows have one, such as `example`."""

    markup: bool = False
    asked: SpecialTokens = "auto"
    rows: int = 0
    example: str = ""  # a special token's text
    row_id: str = ""  # the first row that has it

    def __str__(self) -> str:
        """Says how they are read, where any row has one."""
        if not self.rows:
            return ""
        rows = "1 row holds" if self.rows == 1 else f"{self.rows:,} rows hold"
        what = f"{rows} special tokens’ texts, such as {self.example!r} ({self.row_id}); they are read as "
        if self.markup:
            found = "" if self.asked == "markup" else ": every row begins or ends with one"
            return f"{what}those tokens{found} (dataset.special_tokens: text reads them as text)"
        return f"{what}text (dataset.special_tokens: markup reads them as those tokens)"


def find_markup(examples: Sequence[Example], tokenizer: Tokenizer, asked: SpecialTokens) -> Markup:
    """Looks at all rows; what is `auto` is markup where every row begins or ends with a special token's text.

    Such rows were written by a chat template. A special token's text elsewhere, such as `<s>` in a line of HTML, is
    text. Raises DatasetError where most rows, but not all, begin or end with one.
    """
    specials = special_texts(tokenizer)
    if not specials or not examples:
        return Markup(asked == "markup", asked)
    texts = [example.prompt + example.completion for example in examples]
    rendered = [text.startswith(specials) or text.rstrip().endswith(specials) for text in texts]
    if asked == "auto" and len(texts) / 2 < sum(rendered) < len(texts):
        other = examples[rendered.index(False)].row_id
        raise DatasetError(
            "dataset.special_tokens must be text or markup where most rows, but not all, begin or end with a special "
            f"token’s text; {sum(rendered):,} of {len(texts):,} do, and {other} does not. Write `special_tokens: "
            "markup` to read them as those tokens, `text` to read them as text."
        )
    holding = _holding(texts, specials)
    if not holding:
        return Markup(asked == "markup", asked)
    place, example = holding[0]
    markup = asked == "markup" or (asked == "auto" and all(rendered))
    return Markup(markup, asked, len(holding), example, examples[place].row_id)


def _holding(texts: Sequence[str], specials: Sequence[str]) -> list[tuple[int, str]]:
    """Lists the places of texts that hold a special token's text, each with the first that is found."""
    # Nearly all data have none: one search of all of it for each token is quick, one of each row is not.
    whole = "\0".join(texts)
    there = [special for special in specials if special in whole]
    found = ((place, next((one for one in there if one in text), None)) for place, text in enumerate(texts))
    return [(place, one) for place, one in found if one is not None] if there else []
