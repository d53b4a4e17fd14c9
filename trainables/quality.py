"""What the residents of a host have learned: perplexity, accuracy and samples, several at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trainables.device_memory import PassBudget
from trainables.evaluation import Candidates, Evaluation, evaluate_together
from trainables.generation import answer_text
from trainables.outcomes import Bench
from trainables.packed_lora import LoraAdapter, PackedModel
from trainables.residents import Resident


class QualityBench:
    """Evaluates residents and the base model itself, the base once for all."""

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

    def samples(self, resident: Resident) -> tuple[dict[str, str], ...]:
        """The base model's and the resident's answers to the study's prompts."""
        return tuple(self._sample(resident, prompt) for prompt in self._bench.settings.generation.prompts)

    def _final(self, residents: Sequence[Resident]) -> list[Evaluation]:
        known = [resident.evaluation for resident in residents]
        complete = [one for one in known if one is not None and self._has_accuracy(one)]
        if len(complete) == len(known):
            return complete
        return self._evaluations([resident.member.adapter for resident in residents], "eval", with_accuracy=True)

    def _has_accuracy(self, evaluation: Evaluation) -> bool:
        return evaluation.correct is not None or not self._bench.dataset.candidates

    def _evaluations(self, adapters: Sequence[LoraAdapter | None], split: str, with_accuracy: bool) -> list[Evaluation]:
        dataset = self._bench.dataset
        candidates = Candidates(dataset.candidate_labels, dataset.candidates) if with_accuracy else Candidates()
        rows, tokens = getattr(dataset, split).rows, self._budget.limits().max_tokens
        return evaluate_together(self._model, adapters, rows, candidates, tokens, self._between)

    def _sample(self, resident: Resident, prompt: str) -> dict[str, str]:
        answers = self._bench.answers
        if prompt not in answers:
            answers[prompt] = self._answer(None, prompt)
        return {"prompt": prompt, "base": answers[prompt], "tuned": self._answer(resident.member.adapter, prompt)}

    def _answer(self, adapter: LoraAdapter | None, prompt: str) -> str:
        new_tokens = self._bench.settings.generation.max_new_tokens
        text = answer_text(self._model, adapter, self._bench.base.tokenizer, prompt, new_tokens)
        self._between()
        return text
