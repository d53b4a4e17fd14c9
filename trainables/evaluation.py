"""Perplexity from summed nats, and answer accuracy from likelihoods."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from trainables.dataset import Row
from trainables.packed_lora import LoraAdapter, PackedModel
from trainables.packed_training import collate, pack_rows, target_hidden
from trainables.target_loss import target_nats


@dataclass(frozen=True)
class Candidates:
    """The answers a label can be, tokenized as a completion begins."""

    labels: tuple[str, ...] = ()
    tokens: tuple[tuple[int, ...], ...] = ()

    @property
    def single(self) -> bool:
        """Whether each answer is one token, all distinct: then one forward pass serves them all."""
        return all(len(answer) == 1 for answer in self.tokens) and len(set(self.tokens)) == len(self.tokens)


@dataclass(frozen=True)
class Evaluation:
    """What one adapter (or the base model) makes of one split, row by row in the split's order."""

    nats: tuple[float, ...]
    tokens: tuple[int, ...]
    correct: tuple[bool, ...] | None  # None: the data have no labels, or accuracy was not asked for

    @property
    def perplexity(self) -> float:
        """exp(total nats / total target tokens); infinite where that exceeds what a float holds."""
        mean = sum(self.nats) / sum(self.tokens)
        return math.exp(mean) if mean < 700 else math.inf if not math.isnan(mean) else math.nan

    @property
    def finite(self) -> bool:
        """Whether the perplexity is a number."""
        return math.isfinite(self.perplexity)

    @property
    def accuracy(self) -> float | None:
        """The share of rows whose label was the likeliest answer."""
        return sum(self.correct) / len(self.correct) if self.correct else None


def evaluate(
    model: PackedModel,
    adapter: LoraAdapter | None,
    rows: Sequence[Row],
    candidates: Candidates | None,
    batch_tokens: int,
    between: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Measures a split with dropout off; `between` is called between batches; no batch exceeds `batch_tokens` by much.

    Accuracy is measured where `candidates` (None: not now) has labels: the answer with the highest likelihood against the row's label.
    """
    candidates = candidates or Candidates()
    nats = [0.0] * len(rows)
    correct: list[bool] = [False] * len(rows)
    with torch.no_grad():
        for numbers in batches_by_length(rows, batch_tokens):
            part = [rows[number] for number in numbers]
            part_nats, answers = _evaluate_batch(model, adapter, part, candidates)
            for place, number in enumerate(numbers):
                nats[number] = part_nats[place]
                correct[number] = bool(answers) and answers[place] == rows[number].label
            between()
    counts = tuple(row.target_tokens for row in rows)
    return Evaluation(tuple(nats), counts, tuple(correct) if candidates.labels else None)


def batches_by_length(rows: Sequence[Row], batch_tokens: int) -> Iterator[list[int]]:
    """Row numbers in batches of like length, longest first, so that padding is little and memory shows early."""
    order = sorted(range(len(rows)), key=lambda number: (-len(rows[number].tokens), number))
    while order:
        size = max(1, batch_tokens // len(rows[order[0]].tokens))
        yield order[:size]
        order = order[size:]


def _evaluate_batch(
    model: PackedModel, adapter: LoraAdapter | None, rows: Sequence[Row], candidates: Candidates
) -> tuple[list[float], list[str]]:
    groups = [[row] for row in rows]
    batch = collate(groups, model.device)
    packed = pack_rows([adapter], [rows], [None]) if adapter else []
    with model.rows_of(packed) as causal:
        hidden = target_hidden(causal, batch)
    nats = target_nats(hidden, model.head, batch.targets)
    per_row = [float(part.double().sum()) for part in torch.split(nats, batch.targets_per_group)]
    if not candidates.labels:
        return per_row, []
    if not candidates.single:
        return per_row, [_likeliest(model, adapter, row, candidates) for row in rows]
    ends = torch.tensor(batch.targets_per_group).cumsum(0)
    firsts = (ends - torch.tensor(batch.targets_per_group)).to(hidden.device)  # where each row's first target is
    tokens = torch.tensor([answer[0] for answer in candidates.tokens], device=hidden.device)
    scores = (hidden[firsts] @ model.head[tokens].T).float()  # the normalizer is common to all answers
    return per_row, [candidates.labels[index] for index in scores.argmax(dim=1).tolist()]


def _likeliest(model: PackedModel, adapter: LoraAdapter | None, row: Row, candidates: Candidates) -> str:
    prompt = row.tokens[: row.target_start]
    asked = [Row((*prompt, *answer), len(prompt), None, "") for answer in candidates.tokens]
    nats, _ = _evaluate_batch(model, adapter, asked, Candidates())
    return candidates.labels[min(range(len(nats)), key=nats.__getitem__)]
