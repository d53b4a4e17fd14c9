"""Prepares a study's data: loads, splits, tokenizes and fingerprints it, the same for every trial."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from trainables.dataset.files import DatasetError
from trainables.dataset.pubmedqa import ANSWERS
from trainables.dataset.rows import Row, Split, Tokenizer
from trainables.dataset.sources import load_examples, row_counts
from trainables.dataset.splits import Example
from trainables.dataset.tokens.encoding import Encoding, token_text
from trainables.dataset.tokens.markup import Markup, find_markup
from trainables.dataset.tokens.unknown import Unknown
from trainables.dataset.truncation import tokenize
from trainables.settings import DatasetSettings


@dataclass(frozen=True)
class PreparedDataset:
    """The three splits as tokens; `candidate_labels` are what a label may be, empty where accuracy is not measured.

    `bos` and `eos` are the tokens that rows begin and end with, as texts; None where there is none.
    """

    train: Split
    eval: Split
    test: Split
    fingerprint: str
    candidate_labels: tuple[str, ...]
    statistics: Mapping[str, Mapping[str, Any]]  # by split; JSON-ready, lengths in tokens
    special_tokens: Markup = Markup()  # noqa: RUF009 (frozen)
    unknown: str = ""  # says what the tokenizer does not know of the rows' texts
    bos: str | None = None
    eos: str | None = None


def prepare_dataset(settings: DatasetSettings, tokenizer: Tokenizer, answers: bool = True) -> PreparedDataset:
    """Loads, splits and tokenizes the data; `answers`, which accuracy takes and a plan does not, double the time.

    Raises DatasetError where the data is missing, malformed or too small, or a split has no target left.
    """
    loaded = load_examples(settings)
    named, counts = loaded.examples, row_counts(loaded)
    special = find_markup([*chain(*named.values())], tokenizer, settings.special_tokens)
    encoding = Encoding(tokenizer, special.markup)
    labels = ANSWERS if any(example.label is not None for example in named["train"]) else ()
    unknown = Unknown(tokenizer)
    # Accuracy is never measured on the training split.
    splits = {
        name: _split(name, rows, encoding, settings.max_tokens, labels if answers and name != "train" else (), unknown)
        for name, rows in named.items()
    }
    unknown.check()
    return PreparedDataset(
        **splits,
        fingerprint=fingerprint(tuple(splits.values()), settings.max_tokens),
        candidate_labels=labels,
        statistics={name: {**_statistics(split), **counts[name]} for name, split in splits.items()},
        special_tokens=special,
        unknown=str(unknown),
        bos=token_text(tokenizer, tokenizer.bos_token_id),
        eos=token_text(tokenizer, tokenizer.eos_token_id),
    )


def _split(
    name: str,
    examples: Sequence[Example],
    encoding: Encoding,
    max_tokens: int,
    labels: Sequence[str],
    unknown: Unknown,
) -> Split:
    results = list(tokenize(examples, encoding, max_tokens, labels, unknown.look))
    rows = tuple(row for row, _ in results if row is not None)
    if examples and not rows:
        rule = f"dataset.max_tokens must leave the {name} split a target; at {max_tokens} its {len(examples)} rows have"
        raise DatasetError(f"{rule} none. Raise max_tokens, or shorten the prompts.")
    truncated = sum(row is not None and cut for row, cut in results)
    return Split(name, rows, dropped=len(results) - len(rows), truncated=truncated)


def fingerprint(splits: Sequence[Split], max_tokens: int) -> str:
    """Returns the SHA-256 (hex) of max_tokens and every split's token rows and target starts, in their order.

    Whether special tokens' texts were read as tokens, and where an answer begins, is in the ids and the starts.
    """
    digest = hashlib.sha256(json.dumps({"max_tokens": max_tokens}).encode())
    for split in splits:
        for row in split.rows:
            digest.update(json.dumps([split.name, row.target_start, row.tokens]).encode())
    return digest.hexdigest()


def _statistics(split: Split) -> dict[str, Any]:
    """Returns counts and lengths in tokens.

    Lengths are None for an empty split; the 95th percentile is by nearest rank.
    """
    lengths = sorted(len(row.tokens) for row in split.rows)
    return {
        "rows": len(lengths),
        "dropped": split.dropped,
        "truncated": split.truncated,
        "tokens": sum(lengths),
        "target_tokens": sum(row.target_tokens for row in split.rows),
        "min_length": lengths[0] if lengths else None,
        "median_length": statistics.median(lengths) if lengths else None,
        "p95_length": lengths[math.ceil(0.95 * len(lengths)) - 1] if lengths else None,
        "max_length": lengths[-1] if lengths else None,
    }


RESIZE_REMEDY = (
    "Resize the model for its tokenizer (`model.resize_token_embeddings(len(tokenizer))`) and save both, or take the "
    "tokenizer that belongs to the model."
)


def embedding_fault(
    dataset: PreparedDataset, prompts: Sequence[Sequence[int]], tokenizer: Tokenizer, embedding_rows: int
) -> str | None:
    """Says which row or generation prompt has an id that the embedding lacks, with the remedy; None where none has.

    Tokens of the vocabulary that nothing uses, such as one for padding, may lie beyond it.
    """
    beyond = [(where, largest) for where, largest in _largest(dataset, prompts) if largest >= embedding_rows]
    if not beyond:
        return None
    where, largest = max(beyond, key=lambda pair: pair[1])
    token = token_text(tokenizer, largest)
    return (
        f"ids of tokens must be under {embedding_rows:,}, the rows of the base model's embedding; {where} holds "
        f"{token!r}, id {largest:,} (rows and prompts with such ids: {len(beyond):,}). {RESIZE_REMEDY}"
    )


def _largest(dataset: PreparedDataset, prompts: Sequence[Sequence[int]]) -> Iterator[tuple[str, int]]:
    for split in (dataset.train, dataset.eval, dataset.test):
        for row in split.rows:
            yield f"row {row.row_id} of the {split.name} split", _largest_of(row)
    for number, prompt in enumerate(prompts):
        yield f"generation.prompts.{number}", max(prompt, default=0)


def _largest_of(row: Row) -> int:
    answers = row.answers.tokens if row.answers else ()
    return max(max(row.tokens), *(max(answer, default=0) for answer in answers)) if answers else max(row.tokens)
