"""A tokenizer for tests of which every token can be told: one a letter."""

from __future__ import annotations

from typing import Any

BOS, EOS = 1, 2


class LetterTokenizer:
    """One token a letter: its code point; BOS and EOS as asked, None for none."""

    def __init__(self, bos: int | None = BOS, eos: int | None = EOS, is_fast: bool = True) -> None:
        self.bos_token_id, self.eos_token_id, self.is_fast = bos, eos, is_fast

    def __call__(self, text: str, **options: Any) -> dict[str, Any]:
        """Returns `input_ids` and `offset_mapping`."""
        assert options["add_special_tokens"] is False
        assert self.is_fast or "return_offsets_mapping" not in options
        return {"input_ids": [ord(letter) for letter in text], "offset_mapping": [(i, i + 1) for i in range(len(text))]}
