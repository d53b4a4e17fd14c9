"""Measures what the residents of a host have learned: perplexity, accuracy and samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from trainables.dataset.rows import Row
from trainables.dataset.tokens.encoding import Encoding, prompt_tokens
from trainables.engine.bench import Bench
from trainables.engine.pass_budget import PassBudget
from trainables.engine.residents import Resident
from trainables.limits import USUAL_PASS_TOKENS
from trainables.measure.evaluation import Evaluation, evaluate_together
from trainables.measure.generation import generate_together, text_ends
from trainables.packed.adapter import LoraAdapter
from trainables.packed.packed_model import PackedModel

# Passes of training whose tokens one of evaluation takes. On a CPU each pass casts or dequantizes all weights, which is
# a seventh of a pass of 512 tokens; without a backward pass the memory of twice as many is less than training's.
EVALUATION_PASSES = {"cpu": 2, "cuda": 1}
LARGEST_EXPONENT = 700.0  # whose power of e a float still holds


class QualityBench:
    """Evaluates several residents at once, and the base model once for all of them."""

    def __init__(self, bench: Bench, model: PackedModel, budget: PassBudget, between: Callable[[], None]) -> None:
        self._bench = bench
        self._model = model
        self._budget = budget
        self._between = between

    def evaluate(self, residents: Sequence[Resident]) -> list[Evaluation]:
        """Each resident on the evaluation split; accuracy too where all of them are at their end."""
        at_end = all(resident.member.step >= resident.member.total_steps for resident in residents)
        return self._evaluations([resident.member.adapter for resident in residents], "eval", with_accuracy=at_end)

    def finish(self, residents: Sequence[Resident]) -> None:
        """Gives each resident its final evaluation, and that on the test split; the base model's own come first."""
        if self._bench.evaluation is None:
            (self._bench.evaluation,) = self._evaluations([None], "eval", with_accuracy=True)
        final = self._final(residents)
        tests: list[Evaluation | None] = [None] * len(residents)
        if self._bench.dataset.test.rows:
            tests = [*self._evaluations([resident.member.adapter for resident in residents], "test", True)]
        for resident, evaluation, test in zip(residents, final, tests, strict=True):
            resident.final, resident.test = evaluation, test

    def sample(self, residents: Sequence[Resident]) -> None:
        """Gives each resident samples: what the base model and it write to the study's prompts and held-out questions.

        Beside a held-out question stand its reference and how likely each finds it (perplexity). The residents must
        have had their `finish`.
        """
        settings = self._bench.settings.generation
        encoding = Encoding(self._bench.base.tokenizer, self._bench.dataset.special_tokens.markup)
        asked = [self._answers(residents, prompt, prompt_tokens(encoding, prompt)) for prompt in settings.prompts]
        for number, row in enumerate(self._bench.dataset.eval.rows[: settings.held_out]):
            asked.append(self._held_out(residents, number, row))
        for resident, *samples in zip(residents, *asked, strict=True):
            resident.samples = tuple(samples)

    def _final(self, residents: Sequence[Resident]) -> list[Evaluation]:
        known = [resident.evaluation for resident in residents]
        complete = [one for one in known if one is not None and self._has_accuracy(one)]
        if len(complete) == len(known):
            return complete
        return self._evaluations([resident.member.adapter for resident in residents], "eval", with_accuracy=True)

    def _has_accuracy(self, evaluation: Evaluation) -> bool:
        return evaluation.correct is not None or not self._bench.dataset.candidate_labels

    def _evaluations(self, adapters: Sequence[LoraAdapter | None], split: str, with_accuracy: bool) -> list[Evaluation]:
        dataset = self._bench.dataset
        labels = dataset.candidate_labels if with_accuracy else ()
        limits = self._budget.limits()
        # No more than usual, unless a pass itself costs more: rows are as long as the longest, the rest is padding.
        usual = USUAL_PASS_TOKENS[self._model.device.type]
        tokens = min(limits.max_tokens, max(usual, limits.fixed_tokens)) * EVALUATION_PASSES[self._model.device.type]
        rows = getattr(dataset, split).rows
        return evaluate_together(self._model, adapters, rows, labels, tokens, self._between)

    def _held_out(self, residents: Sequence[Resident], number: int, row: Row) -> list[dict[str, Any]]:
        """The samples of one row of the evaluation split, whose prompt is given as the tokens that training saw."""
        base = self._bench.evaluation
        assert base is not None  # `finish` came first
        prompt = row.tokens[: row.target_start]
        samples = self._answers(residents, self._text(prompt), prompt)
        for resident, sample in zip(residents, samples, strict=True):
            assert resident.final is not None
            sample["reference"] = self._text(row.tokens[row.target_start :])
            sample["base_perplexity"] = _row_perplexity(base, number)
            sample["tuned_perplexity"] = _row_perplexity(resident.final, number)
        return samples

    def _answers(self, residents: Sequence[Resident], prompt: str, tokens: Sequence[int]) -> list[dict[str, Any]]:
        """A sample for each resident; the base model's answer is written with the first of them, and kept."""
        adapters: list[LoraAdapter | None] = [resident.member.adapter for resident in residents]
        new_tokens, ends = self._bench.settings.generation.max_new_tokens, text_ends(self._bench.base.tokenizer)
        known = self._bench.answers.get(tuple(tokens))
        asked = adapters if known is not None else [None, *adapters]
        texts = [self._text(one) for one in generate_together(self._model, asked, tokens, new_tokens, ends=ends)]
        self._between()
        if known is None:
            known, *texts = texts
            self._bench.answers[tuple(tokens)] = known
        return [{"prompt": prompt, "base": known, "tuned": text} for text in texts]

    def _text(self, tokens: Sequence[int]) -> str:
        text: str = self._bench.base.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text.strip()


def _row_perplexity(evaluation: Evaluation, number: int) -> float | None:
    """The perplexity of one row's target; None where it is not finite."""
    mean = evaluation.nats[number] / evaluation.tokens[number]
    return math.exp(mean) if mean < LARGEST_EXPONENT else None
