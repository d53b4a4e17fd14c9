"""Prepares a study's data: loads, splits, tokenizes and fingerprints it, the same for every trial."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainables.dataset.files import DatasetError
from trainables.dataset.pubmedqa import ANSWERS
from trainables.dataset.rows import Split, Tokenizer, token_ids
from trainables.dataset.sources import load_examples, row_counts
from trainables.dataset.splits import Example
from trainables.dataset.truncation import tokenize
from trainables.settings import DatasetSettings


@dataclass(frozen=True)
class PreparedDataset:
    """The three splits as tokens; `candidates` are the labels as they begin a completion, empty without labels."""

    train: Split
    eval: Split
    test: Split
    fingerprint: str
    candidates: tuple[tuple[int, ...], ...]
    candidate_labels: tuple[str, ...]
    statistics: Mapping[str, Mapping[str, Any]]  # by split; JSON-ready, lengths in tokens


def prepare_dataset(settings: DatasetSettings, tokenizer: Tokenizer) -> PreparedDataset:
    """Loads, splits and tokenizes the data.

    Raises DatasetError where the data is missing, malformed or too small, or a split has no target left.
    """
    loaded = load_examples(settings)
    named, counts = loaded.examples, row_counts(loaded)
    splits = {name: _split(name, rows, tokenizer, settings.max_tokens) for name, rows in named.items()}
    overlap = _overlap(named)
    labelled = any(example.label is not None for example in named["train"])
    return PreparedDataset(
        **splits,
        fingerprint=fingerprint(tuple(splits.values()), settings.max_tokens),
        candidates=tuple(tuple(token_ids(tokenizer, f" {answer}")) for answer in ANSWERS) if labelled else (),
        candidate_labels=ANSWERS if labelled else (),
        statistics={
            name: {**_statistics(split), "overlap": overlap[name], **counts[name]} for name, split in splits.items()
        },
    )


def _split(name: str, examples: Sequence[Example], tokenizer: Tokenizer, max_tokens: int) -> Split:
    results = [tokenize(example, tokenizer, max_tokens) for example in examples]
    rows = tuple(row for row, _ in results if row is not None)
    if examples and not rows:
        rule = f"dataset.max_tokens must leave the {name} split a target; at {max_tokens} its {len(examples)} rows have"
        raise DatasetError(f"{rule} none. Raise max_tokens, or shorten the prompts.")
    truncated = sum(row is not None and cut for row, cut in results)
    return Split(name, rows, dropped=len(results) - len(rows), truncated=truncated)


def fingerprint(splits: Sequence[Split], max_tokens: int) -> str:
    """Returns the SHA-256 (hex) of max_tokens and every split's token rows and target starts, in their order."""
    digest = hashlib.sha256(json.dumps({"max_tokens": max_tokens}).encode())
    for split in splits:
        for row in split.rows:
            digest.update(json.dumps([split.name, row.target_start, row.tokens]).encode())
    return digest.hexdigest()


def _overlap(named: Mapping[str, Sequence[Example]]) -> dict[str, int]:
    """Counts rows of evaluation and test that are also trained on, and training rows that are also measured on."""
    pairs = {name: [(example.prompt, example.completion) for example in rows] for name, rows in named.items()}
    trained, measured = set(pairs["train"]), {*pairs["eval"], *pairs["test"]}
    others = {"train": measured, "eval": trained, "test": trained}
    return {name: sum(pair in others[name] for pair in pairs[name]) for name in named}


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
