"""Measures perplexity from summed nats, and accuracy from the likelihoods of answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from search_spaces.footprint import Footprint
from trainables.dataset.rows import Row
from trainables.packed.adapter import LoraAdapter, PackedRows
from trainables.packed.packed_model import PackedModel
from trainables.packed.target_loss import target_nats
from trainables.packed.training import collate, target_hidden


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
    """How one adapter (or the base model) does on a split: nats, tokens and correctness, row by row in its order."""

    nats: tuple[float, ...]
    tokens: tuple[int, ...]
    correct: tuple[bool, ...] | None  # of the rows with a label; None: they have none, or accuracy was not asked for

    @property
    def perplexity(self) -> float:
        """exp(total nats / total target tokens); infinite where that exceeds what a float holds."""
        try:
            return math.exp(sum(self.nats) / sum(self.tokens))
        except OverflowError:
            return math.inf

    @property
    def finite(self) -> bool:
        """Whether the perplexity is a number."""
        return math.isfinite(self.perplexity)

    @property
    def not_finite(self) -> str | None:
        """Says what is not finite: rows' losses, or a perplexity beyond what a float holds; None where all is."""
        if self.finite:
            return None
        lost = [number for number, one in enumerate(self.nats, start=1) if not math.isfinite(one)]
        if lost:
            first = f"the first is row {lost[0]}, with {self.nats[lost[0] - 1]}"
            return f"the loss of {len(lost)} of {len(self.nats)} rows was not finite ({first})"
        mean = sum(self.nats) / sum(self.tokens)
        return f"every row's loss was finite, but a mean of {mean:.6g} nats per token is a perplexity beyond any float"

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
    """One adapter, or the base model (None), on a split: `evaluate_together` for it alone."""
    (evaluation,) = evaluate_together(model, [adapter], rows, candidates, batch_tokens, between)
    return evaluation


def evaluate_together(
    model: PackedModel,
    adapters: Sequence[LoraAdapter | None],
    rows: Sequence[Row],
    candidates: Candidates | None,
    batch_tokens: int,
    between: Callable[[], None] = lambda: None,
) -> list[Evaluation]:
    """Measures a split for several adapters (None: the base model) at once, in their order, with dropout off.

    `between` is called between batches; a batch has at most `batch_tokens` tokens, or one row. Accuracy is measured
    where `candidates` (None: not now) has labels: the answer with the highest likelihood against the row's label.
    """
    candidates = candidates or Candidates()
    nats = [[0.0] * len(rows) for _ in adapters]
    correct = [[False] * len(rows) for _ in adapters]
    with torch.no_grad():
        for places, numbers in _joint_batches(adapters, rows, batch_tokens):
            part = [rows[number] for number in numbers]
            results = _evaluate_batch(model, [adapters[place] for place in places], part, candidates)
            for place, (part_nats, answers) in zip(places, results, strict=True):
                for index, number in enumerate(numbers):
                    nats[place][number] = part_nats[index]
                    correct[place][number] = bool(answers) and answers[index] == rows[number].label
            between()
    counts = tuple(row.target_tokens for row in rows)
    labelled = [number for number, row in enumerate(rows) if candidates.labels and row.label is not None]
    return [
        Evaluation(tuple(own), counts, tuple(right[number] for number in labelled) if labelled else None)
        for own, right in zip(nats, correct, strict=True)
    ]


def _joint_batches(
    adapters: Sequence[LoraAdapter | None], rows: Sequence[Row], batch_tokens: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Places of adapters and numbers of rows that go through the model together."""
    longest = max((len(row.tokens) for row in rows), default=1)
    together = max(1, min(len(adapters), batch_tokens // longest))
    alike = sorted(range(len(adapters)), key=lambda place: _likeness(adapters[place]))
    for start in range(0, len(adapters), together):
        places = alike[start : start + together]
        for numbers in batches_by_length(rows, batch_tokens // len(places)):
            yield places, numbers


def _likeness(adapter: LoraAdapter | None) -> tuple[object, ...]:
    """The base model comes first."""
    return (True, Footprint.of(adapter.config)) if adapter else (False,)


def batches_by_length(rows: Sequence[Row], batch_tokens: int) -> Iterator[list[int]]:
    """Row numbers in batches of like length, longest first, so that padding is little and memory shows early."""
    order = sorted(range(len(rows)), key=lambda number: (-len(rows[number].tokens), number))
    while order:
        size = max(1, batch_tokens // len(rows[order[0]].tokens))
        yield order[:size]
        order = order[size:]


def _evaluate_batch(
    model: PackedModel, adapters: Sequence[LoraAdapter | None], rows: Sequence[Row], candidates: Candidates
) -> list[tuple[list[float], list[str]]]:
    """Nats of every row, and its likeliest answer, for each adapter."""
    batch = collate([[row] for _ in adapters for row in rows], model.device)
    packed = [
        PackedRows(adapter, slice(place * len(rows), (place + 1) * len(rows)), batch.input_ids.shape[1])
        for place, adapter in enumerate(adapters)
        if adapter
    ]
    with model.rows_of(packed) as causal:
        hidden = target_hidden(causal, batch)
    nats = target_nats(hidden, model.head, batch.targets)
    per_row = [float(part.double().sum()) for part in torch.split(nats, batch.targets_per_group)]
    answers = _answers(model, hidden, batch.targets_per_group, candidates)
    results = []
    for place, adapter in enumerate(adapters):
        own = slice(place * len(rows), (place + 1) * len(rows))
        if candidates.labels and not candidates.single:
            results.append((per_row[own], [_likeliest(model, adapter, row, candidates) for row in rows]))
        else:
            results.append((per_row[own], answers[own]))
    return results


def _answers(
    model: PackedModel, hidden: torch.Tensor, targets_per_row: Sequence[int], candidates: Candidates
) -> list[str]:
    """The likeliest answer at each row's first target, where every answer is one token."""
    if not candidates.labels or not candidates.single:
        return []
    counts = torch.tensor(targets_per_row)
    firsts = (counts.cumsum(0) - counts).to(hidden.device)
    tokens = torch.tensor([answer[0] for answer in candidates.tokens], device=hidden.device)
    # In fp32, where 16 bits would make ties of near answers. The normalizer is common to all answers.
    scores = hidden[firsts].float() @ model.head[tokens].float().T
    return [candidates.labels[index] for index in scores.argmax(dim=1).tolist()]


def _likeliest(model: PackedModel, adapter: LoraAdapter | None, row: Row, candidates: Candidates) -> str:
    prompt = row.tokens[: row.target_start]
    asked = [Row((*prompt, *answer), len(prompt), None, "") for answer in candidates.tokens]
    ((nats, _),) = _evaluate_batch(model, [adapter], asked, Candidates())
    return candidates.labels[min(range(len(nats)), key=nats.__getitem__)]
