"""Tokenizes texts and writes tokens as text, by a backend of the `tokenizers` library and named special tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer

CLEANED = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"),
    (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


@dataclass(frozen=True)
class TextTokenizer:
    """A base model's tokenizer, the same in every process; `bos_token`, `eos_token` and `unk_token` may be None.

    `clean_up` takes away the spaces before punctuation that tokens of whole words leave, as transformers does.
    """

    backend: Tokenizer
    bos_token: str | None = None
    eos_token: str | None = None
    unk_token: str | None = None
    clean_up: bool = False

    def encode(self, texts: Sequence[str], markup: bool = False) -> list[Any]:
        """Returns an encoding for each text, with `ids`, and in `offsets` the characters that each token stands for.

        Nothing is added. Special tokens' texts stay text, or with `markup` are read as those tokens.
        """
        self.backend.encode_special_tokens = not markup
        return list(self.backend.encode_batch(list(texts), add_special_tokens=False))

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Returns the text that tokens stand for, special ones left out where asked."""
        text: str = self.backend.decode(list(ids), skip_special_tokens=skip_special_tokens)
        for spaced, clean in CLEANED if self.clean_up else ():
            text = text.replace(spaced, clean)
        return text

    def convert_ids_to_tokens(self, number: int) -> str | None:
        """Returns a token as the vocabulary spells it; None for an id that it does not have."""
        token: str | None = self.backend.id_to_token(number)
        return token

    @property
    def added_tokens_decoder(self) -> Mapping[int, AddedToken]:
        """The tokens that are found in texts before the model's own, by id."""
        found: dict[int, AddedToken] = self.backend.get_added_tokens_decoder()
        return found

    @property
    def bos_token_id(self) -> int | None:
        """The id of the token that begins rows; None where there is none."""
        return self._id(self.bos_token)

    @property
    def eos_token_id(self) -> int | None:
        """The id of the token that ends rows; None where there is none."""
        return self._id(self.eos_token)

    @property
    def unk_token_id(self) -> int | None:
        """The id of the token for what the vocabulary does not know; None where there is none."""
        return self._id(self.unk_token)

    @property
    def sha256(self) -> str:
        """The hash of the whole definition."""
        return hashlib.sha256(self.backend.to_str().encode("utf-8", "replace")).hexdigest()

    def _id(self, token: str | None) -> int | None:
        number: int | None = None if token is None else self.backend.token_to_id(token)
        return number
