"""Types of tokenized data: a row, a split of rows, and what is needed of a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Row:
    """One row's tokens: BOS (where there is one), prompt, completion, EOS; targets are `tokens[target_start:]`.

    `target_start` is at least 1, so every target has a token before it to be predicted from.
    """

    tokens: tuple[int, ...]
    target_start: int
    label: str | None
    row_id: str

    @property
    def target_tokens(self) -> int:
        """The count of tokens that the loss is taken of."""
        return len(self.tokens) - self.target_start


@dataclass(frozen=True)
class Split:
    """The rows of one split; `dropped` rows had no target left at max_tokens, `truncated` ones lost some tokens."""

    name: str
    rows: tuple[Row, ...]
    dropped: int
    truncated: int


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that is needed here."""

    bos_token_id: int | None
    eos_token_id: int | None
    is_fast: bool

    def __call__(self, text: str, **options: Any) -> Mapping[str, Any]:
        """Returns one text's `input_ids`, and its `offset_mapping` with return_offsets_mapping=True."""


def token_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Returns the text's token ids, without special tokens."""
    # verbose=False: a text longer than the model's context is cut below, and needs no warning.
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
