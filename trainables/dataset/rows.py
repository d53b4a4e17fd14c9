"""Types of tokenized data: a row, a split of rows, and what is needed of a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


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


class TokensOfText(Protocol):
    """A text's token ids, and of each the characters that it stands for: [start, end)."""

    @property
    def ids(self) -> Sequence[int]: ...
    @property
    def offsets(self) -> Sequence[tuple[int, int]]: ...


class Tokenizer(Protocol):
    """The part of `trainables.base_model.tokenization.text_tokenizer.TextTokenizer` that is needed here."""

    @property
    def bos_token_id(self) -> int | None: ...
    @property
    def eos_token_id(self) -> int | None: ...
    @property
    def unk_token(self) -> str | None: ...
    @property
    def unk_token_id(self) -> int | None: ...
    @property
    def added_tokens_decoder(self) -> Mapping[int, AddedToken]: ...

    def encode(self, texts: Sequence[str], markup: bool) -> Sequence[TokensOfText]:
        """Returns the tokens of each text; special tokens' texts stay text, or with `markup` are those tokens."""

    def convert_ids_to_tokens(self, ids: int) -> str | None:
        """Returns a token as the vocabulary spells it."""
