"""The data of a study: loaded, split, tokenized, fingerprinted; the same for every trial. (no torch)"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from trainables.dataset.batches import batch_plan, batches, steps_per_epoch
from trainables.dataset.files import DatasetError
from trainables.dataset.sources import ANSWERS, load_examples
from trainables.dataset.splits import Example
from trainables.settings import DatasetSettings

__all__ = [
    "ANSWERS", "DatasetError", "Example", "PreparedDataset", "Row", "Split", "Tokenizer",
    "batch_plan", "batches", "load_examples", "prepare_dataset", "steps_per_epoch", "tokenize",
]  # fmt: skip


class Tokenizer(Protocol):
    """What is needed of a transformers tokenizer."""

    bos_token_id: int | None
    eos_token_id: int | None
    is_fast: bool

    def __call__(self, text: str, **options: Any) -> Mapping[str, Any]:
        """`input_ids`, and with return_offsets_mapping=True `offset_mapping`, of one text."""


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
        """How many tokens count in the loss."""
        return len(self.tokens) - self.target_start


@dataclass(frozen=True)
class Split:
    """The rows of one split; `dropped` rows had no target left at max_tokens, `truncated` ones lost some tokens."""

    name: str
    rows: tuple[Row, ...]
    dropped: int
    truncated: int


@dataclass(frozen=True)
class PreparedDataset:
    """The three splits as tokens; `candidates` are the answers as they begin a completion, empty without labels."""

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
    named = dict(zip(("train", "eval", "test"), load_examples(settings), strict=True))
    splits = {name: _split(name, rows, tokenizer, settings.max_tokens) for name, rows in named.items()}
    overlap = _overlap(named)
    labelled = any(example.label is not None for example in named["train"])
    return PreparedDataset(
        **splits,
        fingerprint=fingerprint(tuple(splits.values()), settings.max_tokens),
        candidates=tuple(tuple(_ids(tokenizer, f" {answer}")) for answer in ANSWERS) if labelled else (),
        candidate_labels=ANSWERS if labelled else (),
        statistics={name: {**_statistics(split), "overlap": overlap[name]} for name, split in splits.items()},
    )


def tokenize(example: Example, tokenizer: Tokenizer, max_tokens: int) -> tuple[Row | None, bool]:
    """The example as at most `max_tokens` tokens (None: no target is left), and whether it lost any.

    Prompt and completion are tokenized each on its own. What is too many is cut first from the context's start, which
    keeps what stands nearest to question and completion; where that is not enough, from the end of the target.
    """
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    eos = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    head, context, tail = _prompt_parts(example, tokenizer)
    target = _ids(tokenizer, example.completion) + eos
    excess = len(bos) + len(head) + len(context) + len(tail) + len(target) - max_tokens
    # Without BOS, head and tail the context's last token stays: a target needs a token before it.
    spare = len(context) if bos or head or tail else len(context) - 1
    prompt = bos + head + context[max(0, min(excess, spare)) :] + tail
    tokens = (prompt + target)[:max_tokens]
    start = max(1, len(prompt))
    if start >= len(tokens):
        return None, excess > 0
    return Row(tuple(tokens), start, example.label, example.row_id), excess > 0


def _prompt_parts(example: Example, tokenizer: Tokenizer) -> tuple[list[int], list[int], list[int]]:
    """The prompt's tokens before, wholly inside, and after the context.

    The prompt is tokenized in one piece; a tokenizer that cannot tell where its tokens lie gets three pieces.
    """
    if not example.context:
        return _ids(tokenizer, example.prompt), [], []
    if not tokenizer.is_fast:
        return (
            _ids(tokenizer, example.prompt_head),
            _ids(tokenizer, example.context),
            _ids(tokenizer, example.prompt_tail),
        )
    encoded = tokenizer(example.prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids, offsets = list(encoded["input_ids"]), encoded["offset_mapping"]
    first, last = len(example.prompt_head), len(example.prompt_head) + len(example.context)
    begin = next((i for i, (start, _) in enumerate(offsets) if start >= first), len(ids))
    end = next((i for i in range(begin, len(ids)) if offsets[i][1] > last), len(ids))
    return ids[:begin], ids[begin:end], ids[end:]


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    # verbose=False: a text longer than the model's context is cut below, and needs no warning.
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _split(name: str, examples: Sequence[Example], tokenizer: Tokenizer, max_tokens: int) -> Split:
    results = [tokenize(example, tokenizer, max_tokens) for example in examples]
    rows = tuple(row for row, _ in results if row is not None)
    if examples and not rows:
        rule = f"dataset.max_tokens must leave the {name} split a target; at {max_tokens} its {len(examples)} rows have"
        raise DatasetError(f"{rule} none. Raise max_tokens, or shorten the prompts.")
    truncated = sum(row is not None and cut for row, cut in results)
    return Split(name, rows, dropped=len(results) - len(rows), truncated=truncated)


def fingerprint(splits: Sequence[Split], max_tokens: int) -> str:
    """SHA-256 (hex) over max_tokens and every split's token rows and target starts, in their order."""
    digest = hashlib.sha256(json.dumps({"max_tokens": max_tokens}).encode())
    for split in splits:
        for row in split.rows:
            digest.update(json.dumps([split.name, row.target_start, row.tokens]).encode())
    return digest.hexdigest()


def _overlap(named: Mapping[str, Sequence[Example]]) -> dict[str, int]:
    """Rows of evaluation and test that are also trained on, and training rows that are also measured on."""
    pairs = {name: [(example.prompt, example.completion) for example in rows] for name, rows in named.items()}
    trained, measured = set(pairs["train"]), {*pairs["eval"], *pairs["test"]}
    others = {"train": measured, "eval": trained, "test": trained}
    return {name: sum(pair in others[name] for pair in pairs[name]) for name in named}


def _statistics(split: Split) -> dict[str, Any]:
    """Counts and lengths in tokens; lengths are None for an empty split, the 95th percentile is by nearest rank."""
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
