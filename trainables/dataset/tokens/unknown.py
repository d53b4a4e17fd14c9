"""Counts the rows in which a tokenizer knows no token for a part of the text, or leaves it out."""

from __future__ import annotations

from dataclasses import dataclass

from trainables.dataset.files import DatasetError
from trainables.dataset.rows import Tokenizer
from trainables.dataset.splits import Example
from trainables.dataset.tokens.encoding import Encoded


@dataclass
class Unknown:
    """What has been seen so far: rows in which something is unknown, the first such text, and its row."""

    tokenizer: Tokenizer
    rows: int = 0
    example: str = ""
    row_id: str = ""
    tokens: int = 0
    unknown_tokens: int = 0

    def look(self, example: Example, encoded: Encoded) -> None:
        """Takes a row into account."""
        number = self._id()
        unknown = 0 if number is None else list(encoded.ids).count(number)
        self.tokens += len(encoded.ids)
        self.unknown_tokens += unknown
        text = _left_out(encoded)
        if unknown and number is not None:
            start, end = encoded.offsets[list(encoded.ids).index(number)]
            text = encoded.text[start:end]
        if text:
            self.rows += 1
            if not self.example:
                self.example, self.row_id = text, example.row_id

    def check(self) -> None:
        """Raises DatasetError where most of the text is unknown: the tokenizer is not the model's, or is broken."""
        if self.tokens and 2 * self.unknown_tokens <= self.tokens:
            return
        if self.rows or not self.tokens:
            raise DatasetError(
                f"the base model's tokenizer must know the rows' text; of {self.tokens:,} tokens "
                f"{self.unknown_tokens:,} are unknown, such as {self.example[:40]!r} ({self.row_id or 'every row'}). "
                "Take the model's own tokenizer, or another model."
            )

    def __str__(self) -> str:
        """Says what is unknown, where anything is."""
        if not self.rows:
            return ""
        rows = "1 row holds" if self.rows == 1 else f"{self.rows:,} rows hold"
        return f"{rows} text that the tokenizer does not know, such as {self.example[:40]!r} ({self.row_id})"

    def _id(self) -> int | None:
        """The unknown token's id; one that is a letter, as of small tokenizers, is met as that letter too."""
        text = self.tokenizer.unk_token
        return None if text is None or len(str(text)) == 1 else self.tokenizer.unk_token_id


def _left_out(encoded: Encoded) -> str:
    """Returns the first text but white space that no token stands for."""
    end = 0
    for start, stop in encoded.offsets:
        if start > end and (text := encoded.text[end:start].strip()):
            return text
        end = max(end, stop)
    return encoded.text[end:].strip()
