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
from trainables.measure.generation import Asked, generate_all, text_ends
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
        questions = self._bench.dataset.eval.rows[: settings.held_out]
        prompts = [tuple(prompt_tokens(encoding, prompt)) for prompt in settings.prompts]
        asked = [*prompts, *(row.tokens[: row.target_start] for row in questions)]
        words = [*settings.prompts, *(self._text(tokens) for tokens in asked[len(prompts) :])]
        samples = [
            [{"prompt": prompt, "base": base, "tuned": text} for text in texts]
            for prompt, (base, texts) in zip(words, self._answers(residents, asked), strict=True)
        ]
        for number, row in enumerate(questions):
            self._add_reference(residents, number, row, samples[len(prompts) + number])
        for resident, *own in zip(residents, *samples, strict=True):
            resident.samples = tuple(own)

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
        rows = getattr(dataset, split).rows
        return evaluate_together(self._model, adapters, rows, labels, self._pass_tokens(), self._between)

    def _pass_tokens(self) -> int:
        """Counts the tokens of a pass without training."""
        limits, kind = self._budget.limits(), self._model.device.type
        # No more than usual, unless a pass itself costs more: rows are as long as the longest, the rest is padding.
        return min(limits.max_tokens, max(USUAL_PASS_TOKENS[kind], limits.fixed_tokens)) * EVALUATION_PASSES[kind]

    def _add_reference(
        self, residents: Sequence[Resident], number: int, row: Row, samples: Sequence[dict[str, Any]]
    ) -> None:
        """Puts beside the samples of one row of the evaluation split what was to be written, and how likely it was."""
        base = self._bench.evaluation
        assert base is not None  # `finish` came first
        for resident, sample in zip(residents, samples, strict=True):
            assert resident.final is not None
            sample["reference"] = self._text(row.tokens[row.target_start :])
            sample["base_perplexity"] = _row_perplexity(base, number)
            sample["tuned_perplexity"] = _row_perplexity(resident.final, number)

    def _answers(
        self, residents: Sequence[Resident], prompts: Sequence[tuple[int, ...]]
    ) -> list[tuple[str, list[str]]]:
        """For each prompt the base model's answer, which is kept, and each resident's."""
        known = self._bench.answers
        new: list[Asked] = [(None, tokens) for tokens in dict.fromkeys(prompts) if tokens not in known]
        asked: list[Asked] = [*new, *((one.member.adapter, tokens) for tokens in prompts for one in residents)]
        length, ends = self._bench.settings.generation.max_new_tokens, text_ends(self._bench.base.tokenizer)
        written = generate_all(self._model, asked, length, self._pass_tokens(), ends, self._between)
        texts = [self._text(one) for one in written]
        known.update({tuple(tokens): text for (_, tokens), text in zip(new, texts, strict=False)})
        own, count = texts[len(new) :], len(residents)
        return [(known[tokens], own[k * count : (k + 1) * count]) for k, tokens in enumerate(prompts)]

    def _text(self, tokens: Sequence[int]) -> str:
        text: str = self._bench.base.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text.strip()


def _row_perplexity(evaluation: Evaluation, number: int) -> float | None:
    """The perplexity of one row's target; None where it is not finite."""
    mean = evaluation.nats[number] / evaluation.tokens[number]
    return math.exp(mean) if mean < LARGEST_EXPONENT else None
