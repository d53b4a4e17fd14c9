"""A tokenizer for tests of which every token can be told: one a letter."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

BOS, EOS = 1, 2
SPECIALS = {BOS: "\x01<s>", EOS: "\x02</s>"}  # texts that no test's data hold by chance


class LetterTokenizer:
    """One token a letter: its code point; BOS and EOS as asked, None for none; `joined` letters are one token."""

    unk_token: str | None = None
    unk_token_id: int | None = None

    def __init__(self, bos: int | None = BOS, eos: int | None = EOS, joined: dict[str, int] | None = None) -> None:
        self.bos_token_id, self.eos_token_id, self.joined = bos, eos, joined or {}
        self.added_tokens_decoder = {BOS: SpecialToken(SPECIALS[BOS]), EOS: SpecialToken(SPECIALS[EOS])}

    def encode(self, texts: Sequence[str], markup: bool = False) -> list[Any]:
        """Returns each text's `ids` and `offsets`."""
        found = [self._pieces(one, not markup) for one in texts]
        return [
            SimpleNamespace(ids=[number for number, _ in pieces], offsets=[offsets for _, offsets in pieces])
            for pieces in found
        ]

    def convert_ids_to_tokens(self, number: int) -> str:
        """Returns the letter, or the special token's text."""
        return SPECIALS.get(number) or chr(number)

    def _pieces(self, text: str, split: bool) -> list[tuple[int, tuple[int, int]]]:
        known = {**self.joined, **({} if split else {special: number for number, special in SPECIALS.items()})}
        pieces, at = [], 0
        while at < len(text):
            piece = next((one for one in known if text.startswith(one, at)), text[at])
            pieces.append((known.get(piece, ord(text[at])), (at, at + len(piece))))
            at += len(piece)
        return pieces


class SpecialToken(SimpleNamespace):
    """A token that is special, and its text."""

    special = True

    def __init__(self, text: str) -> None:
        super().__init__(text=text)

    def __str__(self) -> str:
        return str(self.text)
