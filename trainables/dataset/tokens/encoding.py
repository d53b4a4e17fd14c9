"""Turns texts into token ids: whole texts, special tokens read as text or as markup, BOS and EOS added once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from trainables.base_model.tokenizer_limits import within
from trainables.dataset.files import DatasetError
from trainables.dataset.rows import Tokenizer

MOST_CHARACTERS = 2**21  # of a row: a few hundred MiB while it is tokenized
BATCH_CHARACTERS = 2**19
PATIENCE_SECONDS, CHARACTERS_PER_SECOND = 20.0, 10_000  # slower than this, a tokenizer has no end

Offsets = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Encoded:
    """A text's token ids, and of each the characters that it stands for: [start, end)."""

    text: str
    ids: Sequence[int]
    offsets: Offsets

    def tokens_within(self, characters: int) -> int:
        """Counts the leading tokens that stand for the first `characters` characters alone; a token across is none."""
        if characters == 0:  # what a tokenizer puts before a text belongs to the text
            return 0
        return next((place for place, (_, end) in enumerate(self.offsets) if end > characters), len(self.ids))


@dataclass(frozen=True)
class Encoding:
    """A tokenizer, and how special tokens' texts in the data are read: as text, or (`markup`) as those tokens."""

    tokenizer: Tokenizer
    markup: bool = False

    def encode(self, texts: Iterable[str]) -> Iterator[Encoded]:
        """Yields the texts as tokens, without BOS and EOS, in their order; a few at a time are in memory.

        Raises DatasetError where a text is too long, the tokenizer too slow, or a text would become a control token.
        """
        controls = frozenset() if self.markup else control_ids(self.tokenizer)
        for batch in _batches(texts):
            for one in self._encode(batch):
                if not controls.isdisjoint(one.ids):
                    self._refuse_control(one, controls)
                yield one

    def bos(self, encoded: Encoded) -> list[int]:
        """Returns what to put before a text: BOS, where there is one and the text does not begin with it."""
        bos = self.tokenizer.bos_token_id
        return [] if bos is None or list(encoded.ids[:1]) == [bos] else [bos]

    def eos(self, encoded: Encoded) -> list[int]:
        """Returns what to put after a text: EOS, where there is one and the text does not end with it.

        White space after it, which chat templates write, does not count.
        """
        eos, end = self.tokenizer.eos_token_id, len(encoded.text.rstrip())
        last = next((token for token, (start, _) in _backwards(encoded) if start < end), None)
        return [] if eos is None or last == eos else [eos]

    def _encode(self, texts: Sequence[str]) -> list[Encoded]:
        characters = sum(map(len, texts))
        seconds = PATIENCE_SECONDS + characters / CHARACTERS_PER_SECOND
        try:
            found = within(seconds, lambda: self.tokenizer.encode(texts, self.markup))
        except (TimeoutError, RuntimeError) as error:
            raise DatasetError(
                f"the base model's tokenizer must tokenize {characters:,} characters within {seconds:.0f} s; it does "
                f"not: {error}. Take the model's own tokenizer.json, or shorten the rows."
            ) from error
        return [Encoded(text, one.ids, one.offsets) for text, one in zip(texts, found, strict=True)]

    def _refuse_control(self, encoded: Encoded, controls: frozenset[int]) -> None:
        token, (start, end) = next(
            pair for pair in zip(encoded.ids, encoded.offsets, strict=True) if pair[0] in controls
        )
        raise DatasetError(
            f"rows must stay text, which the base model's tokenizer cannot do: it takes {encoded.text[start:end]!r} in "
            f"{encoded.text[max(0, start - 20) : end + 20]!r} for the special token {token}. Write "
            "dataset.special_tokens: markup, or take it out of the rows."
        )


def prompt_tokens(encoding: Encoding, prompt: str) -> list[int]:
    """Returns a text as the beginning of a row: BOS where there is one, then the text's tokens."""
    (encoded,) = encoding.encode([prompt])
    return [*encoding.bos(encoded), *encoded.ids]


def special_texts(tokenizer: Tokenizer) -> tuple[str, ...]:
    """Lists the texts of the tokens that a tokenizer calls special, sorted.

    Those of one character, and the token for unknown characters, may stand in any text and are left out.
    """
    added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    return tuple(sorted({text for text in added if len(text) > 1 and text != str(tokenizer.unk_token)}))


def control_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Returns the ids of `special_texts`."""
    texts = set(special_texts(tokenizer))
    return frozenset(number for number, token in tokenizer.added_tokens_decoder.items() if str(token) in texts)


def token_text(tokenizer: Tokenizer, number: int | None) -> str | None:
    """Returns a token as the vocabulary spells it; None for None."""
    return None if number is None else str(tokenizer.convert_ids_to_tokens(number))


def _backwards(encoded: Encoded) -> Iterator[tuple[int, tuple[int, int]]]:
    return zip(reversed(encoded.ids), reversed(encoded.offsets), strict=True)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yields the texts in lists of `BATCH_CHARACTERS` characters or so. Raises DatasetError for one too long."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        if len(text) > MOST_CHARACTERS:
            raise DatasetError(
                f"a row's text must hold at most {MOST_CHARACTERS:,} characters; one holds {len(text):,} "
                f"({text[:40]!r}...). Part it into several rows."
            )
        batch.append(text)
        characters += len(text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
