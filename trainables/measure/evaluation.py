"""Measures perplexity from summed nats, and accuracy from the likelihoods of answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from trainables.dataset.rows import Row
from trainables.packed.adapter import LoraAdapter, PackedRows, by_likeness
from trainables.packed.packed_model import PackedModel
from trainables.packed.training import collate, target_hidden


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
    labels: Sequence[str],
    batch_tokens: int,
    between: Callable[[], None] = lambda: None,
) -> Evaluation:
    """One adapter, or the base model (None), on a split: `evaluate_together` for it alone."""
    (evaluation,) = evaluate_together(model, [adapter], rows, labels, batch_tokens, between)
    return evaluation


def evaluate_together(
    model: PackedModel,
    adapters: Sequence[LoraAdapter | None],
    rows: Sequence[Row],
    labels: Sequence[str],
    batch_tokens: int,
    between: Callable[[], None] = lambda: None,
) -> list[Evaluation]:
    """Measures a split for several adapters (None: the base model) at once, in their order, with dropout off.

    `between` is called between batches; a batch has at most `batch_tokens` tokens, or one row. Accuracy is measured
    where there are `labels` (none: not now), of rows with answers, one for each label: the label of the likeliest
    answer against the row's own.
    """
    nats = [[0.0] * len(rows) for _ in adapters]
    correct = [[False] * len(rows) for _ in adapters]
    with torch.no_grad():
        for places, numbers in _joint_batches(adapters, rows, batch_tokens):
            part = [rows[number] for number in numbers]
            results = _evaluate_batch(model, [adapters[place] for place in places], part, labels)
            for place, (part_nats, answers) in zip(places, results, strict=True):
                for index, number in enumerate(numbers):
                    nats[place][number] = part_nats[index]
                    correct[place][number] = answers[index] == rows[number].label
            between()
    counts = tuple(row.target_tokens for row in rows)
    labelled = [number for number, row in enumerate(rows) if labels and _is_asked(row)]
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
    alike = by_likeness(adapters)
    for start in range(0, len(adapters), together):
        places = alike[start : start + together]
        for numbers in batches_by_length(rows, batch_tokens // len(places)):
            yield places, numbers


def batches_by_length(rows: Sequence[Row], batch_tokens: int) -> Iterator[list[int]]:
    """Row numbers in batches of like length, longest first, so that padding is little and memory shows early."""
    order = sorted(range(len(rows)), key=lambda number: (-len(rows[number].tokens), number))
    while order:
        size = max(1, batch_tokens // len(rows[order[0]].tokens))
        yield order[:size]
        order = order[size:]


def _is_asked(row: Row) -> bool:
    return row.label is not None and row.answers is not None


def _evaluate_batch(
    model: PackedModel, adapters: Sequence[LoraAdapter | None], rows: Sequence[Row], labels: Sequence[str]
) -> list[tuple[list[float], list[str | None]]]:
    """Nats of every row, and the label of its likeliest answer (None: not asked for), for each adapter."""
    batch = collate([[row] for _ in adapters for row in rows], model.device)
    packed = [
        PackedRows(adapter, slice(place * len(rows), (place + 1) * len(rows)), batch.input_ids.shape[1])
        for place, adapter in enumerate(adapters)
        if adapter
    ]
    with model.rows_of(packed) as causal:
        hidden = target_hidden(causal, batch)
    nats = model.target_nats(hidden, batch.targets)
    per_row = [float(part.double().sum()) for part in torch.split(nats, batch.targets_per_group)]
    chosen = _likeliest_of_one_token(model, hidden, batch.targets_per_group, [*rows] * len(adapters), labels)
    results = []
    for place, adapter in enumerate(adapters):
        own = slice(place * len(rows), (place + 1) * len(rows))
        answers = [
            _likeliest(model, adapter, row, labels) if found is None and labels and _is_asked(row) else found
            for row, found in zip(rows, chosen[own], strict=True)
        ]
        results.append((per_row[own], answers))
    return results


def _likeliest_of_one_token(
    model: PackedModel, hidden: torch.Tensor, targets_per_row: Sequence[int], rows: Sequence[Row], labels: Sequence[str]
) -> list[str | None]:
    """The label of the likeliest answer at each row's first target; None where its answers have several tokens."""
    chosen: list[str | None] = [None] * len(rows)
    asked = [place for place, row in enumerate(rows) if labels and _is_asked(row) and _at_first_target(row)]
    if not asked:
        return chosen
    counts = torch.tensor(targets_per_row)
    firsts = (counts.cumsum(0) - counts)[asked].to(hidden.device)
    tokens = torch.tensor([[answer[0] for answer in _tokens(rows[place])] for place in asked], device=hidden.device)
    # In fp32, where 16 bits would make ties of near answers. The normalizer is common to all answers, and neither a
    # division nor a cap changes their order.
    scores = torch.einsum("rd,rad->ra", hidden[firsts].float(), model.head[tokens].float())
    if (bias := model.output_head.bias) is not None:
        scores += bias[tokens].float()
    for place, index in zip(asked, scores.argmax(dim=1).tolist(), strict=True):
        chosen[place] = labels[index]
    return chosen


def _at_first_target(row: Row) -> bool:
    """Whether all of the row's answers are one token at its first target."""
    return row.answers is not None and row.answers.single and row.answers.prompt_tokens == row.target_start


def _tokens(row: Row) -> tuple[tuple[int, ...], ...]:
    return row.answers.tokens if row.answers else ()


def _likeliest(model: PackedModel, adapter: LoraAdapter | None, row: Row, labels: Sequence[str]) -> str:
    """The label of the answer with the highest likelihood after the tokens that all answers share."""
    assert row.answers is not None
    prompt = row.tokens[: row.answers.prompt_tokens]
    asked = [Row((*prompt, *answer), len(prompt), None, "") for answer in row.answers.tokens]
    ((nats, _),) = _evaluate_batch(model, [adapter], asked, ())
    return labels[min(range(len(nats)), key=nats.__getitem__)]
