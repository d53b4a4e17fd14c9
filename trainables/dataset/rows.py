"""Types of tokenized data: a row, a split of rows, and what is needed of a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Answers:
    """The answers that a row's label is one of, as tokens after the first `prompt_tokens` tokens of the row."""

    prompt_tokens: int
    tokens: tuple[tuple[int, ...], ...]

    @property
    def single(self) -> bool:
        """Whether each answer is one token, all distinct: then one forward pass serves them all."""
        return all(len(answer) == 1 for answer in self.tokens) and len(set(self.tokens)) == len(self.tokens)


@dataclass(frozen=True)
class Row:
    """One row's tokens: BOS (where there is one), prompt, completion, EOS; targets are `tokens[target_start:]`.

    `target_start` is at least 1, so every target has a token before it to be predicted from.
    """

    tokens: tuple[int, ...]
    target_start: int
    label: str | None
    row_id: str
    answers: Answers | None = None  # where accuracy is measured

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


class AddedToken(Protocol):
    """A token that a tokenizer finds in texts before its model does."""

    special: bool


class Tokenizer(Protocol):
    """The part of a fast transformers tokenizer that is needed here."""

    bos_token_id: int | None
    eos_token_id: int | None
    unk_token: str | None
    unk_token_id: int | None
    added_tokens_decoder: Mapping[int, AddedToken]

    def __call__(self, text: list[str], **options: Any) -> Mapping[str, Any]:
        """Returns the texts' `input_ids`, and their `offset_mapping` with return_offsets_mapping=True."""

    def convert_ids_to_tokens(self, ids: int) -> str | None:
        """Returns a token as the vocabulary spells it."""
