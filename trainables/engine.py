"""Who does what next on one base model: measuring alone, training together, evaluating, finishing. (no ray)

One thread calls `work` again and again; all else that touches residents runs between its units, on the same thread.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from trainables.adapter_files import peft_files
from trainables.base_model import BaseModel
from trainables.dataset import PreparedDataset, batch_plan
from trainables.evaluation import Candidates, Evaluation, evaluate
from trainables.generation import answer_text, generated_tokens_per_second
from trainables.outcomes import Bench, complete_outcome, ended_outcome
from trainables.packed_lora import PackedModel
from trainables.packed_training import StepResult, TrainingMember, discard_gradients, train_step
from trainables.protocol import JoinRequest, NotResidentError, ResidentStatus
from trainables.residents import Parked, Resident
from trainables.resources import Footprint, FootprintKey, footprint_key, footprint_plan, measure_footprint
from trainables.settings import TrialSettings

EVALUATION_BATCH_TOKENS = {"cpu": 512, "cuda": 4096}
DEFAULT_PACK = {"cpu": 4, "cuda": 8}
SPEED_TOKENS = 16  # generated to take the decoding speed
GRACE_SECONDS, GRACE_OF_STEP = 0.05, 0.05  # how long a step waits for adapters that have just reported

KeepAdapter = Callable[[str, dict[str, bytes]], None]


class Engine:
    """One base model, its data, and the adapters resident on it."""

    def __init__(
        self,
        settings: TrialSettings,
        base: BaseModel,
        dataset: PreparedDataset,
        keep_adapter: KeepAdapter,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self.base = base
        self.dataset = dataset
        self.residents: dict[str, Resident] = {}
        self._keep_adapter = keep_adapter
        self._between = between
        self._model = PackedModel(base.model)
        self._footprints: dict[FootprintKey, Footprint] = {}
        self._incarnations: dict[str, int] = {}
        self._bench = Bench(settings, base, dataset)
        self._last_step_seconds = 0.0
        self._turn = 0
        self._pack_limit = settings.hardware.max_adapters_per_gpu or DEFAULT_PACK[base.device.type]
        base.model.train()
        if settings.training.gradient_checkpointing:
            options = {"use_reentrant": False, "preserve_rng_state": False}  # dropout has its own generator
            base.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)

    # -- what trials ask for ------------------------------------------------------------------------------------------

    def join(self, request: JoinRequest) -> None:
        """Takes an adapter in, from its checkpoint where it has one. Raises NotResidentError for a stale incarnation."""
        self._check_incarnation(request.trial_id, request.incarnation)
        plan = batch_plan(len(self.dataset.train.rows), self.settings.training, request.config.seed)
        member = self._new_member(request.config, plan)
        resident = Resident(request.trial_id, request.incarnation, member)
        if request.state is not None:
            resident.restore(request.state)
        self._incarnations[request.trial_id] = request.incarnation
        self.residents[request.trial_id] = resident

    def leave(self, trial_id: str, incarnation: int) -> None:
        """Lets an adapter go; one that is gone, or a stale incarnation, changes nothing."""
        resident = self.residents.get(trial_id)
        if resident and resident.incarnation <= incarnation:
            del self.residents[trial_id]

    def resident(self, trial_id: str, incarnation: int) -> Resident:
        """The trial's resident. Raises NotResidentError where it is not here in this incarnation."""
        resident = self.residents.get(trial_id)
        if resident is None or resident.incarnation != incarnation:
            raise NotResidentError(f"{trial_id} (incarnation {incarnation}) is not resident on this host")
        return resident

    def statuses(self) -> list[ResidentStatus]:
        """The live table's lines."""
        return [resident.status() for resident in list(self.residents.values())]

    def _check_incarnation(self, trial_id: str, incarnation: int) -> None:
        newest = self._incarnations.get(trial_id, -1)
        if incarnation <= newest:
            raise NotResidentError(f"{trial_id}: incarnation {incarnation} is stale, {newest} has been here")

    # -- what the host's thread does ----------------------------------------------------------------------------------

    def work(self) -> bool:
        """Does one unit of work; False where there is nothing to do now."""
        for phase, unit in (("measuring", self._measure), ("evaluating", self._evaluate), ("finishing", self._finish)):
            for resident in list(self.residents.values()):
                if resident.phase == phase:
                    with self._blame([resident]):
                        unit(resident)
                    return True
        return self._train()

    @contextmanager
    def _blame(self, residents: Sequence[Resident]):
        """Ends the one resident that was at work when something failed; of several, each steps alone until it is known."""
        try:
            yield
        except Exception as error:
            discard_gradients([resident.member for resident in residents])
            if isinstance(error, torch.OutOfMemoryError):
                torch.cuda.empty_cache()
            if len(residents) == 1:
                residents[0].end(self._failure(residents[0], error))
                return
            for resident in residents:
                resident.alone = True

    def _failure(self, resident: Resident, error: Exception):
        if isinstance(error, torch.OutOfMemoryError):
            free, total = torch.cuda.mem_get_info() if self.base.device.type == "cuda" else (None, None)
            facts = {"phase": resident.phase, "requested_bytes": None, "available_bytes": free, "card_bytes": total}
            facts["source"] = "observed"
            reason = f"out of memory while {resident.phase}, alone on the card"
            return ended_outcome(self._bench, resident, "infeasible", reason, error=str(error), infeasible=facts)
        text = "".join(traceback.format_exception(error)[-8:])
        return ended_outcome(self._bench, resident, "failed", f"{type(error).__name__}: {error}", error=text)

    def _train(self) -> bool:
        ready = [r for r in self.residents.values() if r.phase == "training" and r.awaiting_since is None]
        if not ready:
            return False
        if self._worth_waiting():
            time.sleep(0.002)
            return True
        pack = self._next_pack(ready)
        started = time.perf_counter()
        with self._blame(pack):
            results = train_step(self._model, [r.member for r in pack], self.dataset.train.rows, self._between)
            seconds = time.perf_counter() - started
            self._last_step_seconds = seconds
            for resident, result in zip(pack, results, strict=True):
                self._after_step(resident, result, len(pack), seconds)
        return True

    def _worth_waiting(self) -> bool:
        """Whether an adapter has reported so lately that it may join this step: else packs split for good."""
        grace = max(GRACE_SECONDS, GRACE_OF_STEP * self._last_step_seconds)
        since = [r.awaiting_since for r in self.residents.values() if r.awaiting_since is not None]
        return any(time.monotonic() - moment < grace for moment in since)

    def _next_pack(self, ready: list[Resident]) -> list[Resident]:
        """Up to the limit, those first who have done the fewest steps; suspects of a failure step alone."""
        self._turn += 1
        suspects = [resident for resident in ready if resident.alone]
        if suspects:
            return [suspects[self._turn % len(suspects)]]
        return sorted(ready, key=lambda resident: resident.member.step)[: self._pack_limit]

    def _after_step(self, resident: Resident, result: StepResult, pack_size: int, seconds: float) -> None:
        resident.tokens_per_second = result.tokens / seconds
        resident.alone = False
        if result.diverged:
            reason = f"the loss was {result.loss} at step {resident.member.step}"
            resident.end(ended_outcome(self._bench, resident, "diverged", reason))
        else:
            resident.note_step(result, pack_size)

    def _measure(self, resident: Resident) -> None:
        key = footprint_key(resident.config)
        if key not in self._footprints:
            parked = [Parked(r.member, self.base.device) for r in self.residents.values() if r.phase != "ended"]
            try:
                self._footprints[key] = self._measure_alone(resident)
            finally:
                for one in parked:
                    one.back()
        resident.peak_memory_bytes = self._footprints[key].peak_memory_bytes
        resident.phase = resident.next_phase()

    def _measure_alone(self, resident: Resident) -> Footprint:
        rows = self.dataset.train.rows
        plan = footprint_plan(rows, self.settings.training.micro_batch_size)
        prompt = self._speed_prompt()
        if self._bench.generated_tokens_per_second is None:
            self._bench.generated_tokens_per_second = generated_tokens_per_second(
                self._model, None, prompt, SPEED_TOKENS
            )
        scratch = self._new_member(resident.config, plan)
        return measure_footprint(self._model, scratch, rows, prompt, SPEED_TOKENS)

    def _speed_prompt(self) -> Sequence[int]:
        """The prompt of the evaluation split's median length."""
        rows = sorted(self.dataset.eval.rows, key=lambda row: row.target_start)
        row = rows[len(rows) // 2]
        return row.tokens[: row.target_start]

    def _evaluate(self, resident: Resident) -> None:
        evaluation = self._evaluation(resident, "eval", final=resident.member.step >= resident.member.total_steps)
        if not evaluation.finite:
            reason = f"the perplexity was not finite at step {resident.member.step}"
            resident.end(ended_outcome(self._bench, resident, "diverged", reason))
        else:
            resident.note_evaluation(evaluation)

    def _finish(self, resident: Resident) -> None:
        final = resident.evaluation or self._evaluation(resident, "eval", final=True)
        if self._bench.evaluation is None:
            self._bench.evaluation = self._evaluation(None, "eval", final=True)
        test = self._evaluation(resident, "test", final=True) if self.dataset.test.rows else None
        samples = tuple(self._sample(resident, prompt) for prompt in self.settings.generation.prompts)
        files = peft_files(resident.member.adapter, self.base.info.path, self.settings.base_model.revision)
        self._keep_adapter(resident.trial_id, files)
        footprint = self._footprints[footprint_key(resident.config)]
        resident.end(complete_outcome(self._bench, resident, footprint, final, test, samples))

    def _evaluation(self, resident: Resident | None, split: str, final: bool) -> Evaluation:
        rows = getattr(self.dataset, split).rows
        adapter = resident.member.adapter if resident else None
        tokens = EVALUATION_BATCH_TOKENS[self.base.device.type]
        candidates = Candidates(self.dataset.candidate_labels, self.dataset.candidates) if final else None
        return evaluate(self._model, adapter, rows, candidates, tokens, self._between)

    def _sample(self, resident: Resident, prompt: str) -> dict[str, str]:
        def answer(adapter: Any) -> str:
            new_tokens = self.settings.generation.max_new_tokens
            return answer_text(self._model, adapter, self.base.tokenizer, prompt, new_tokens)

        if prompt not in self._bench.answers:
            self._bench.answers[prompt] = answer(None)
            self._between()
        tuned = answer(resident.member.adapter)
        self._between()
        return {"prompt": prompt, "base": self._bench.answers[prompt], "tuned": tuned}

    def _new_member(self, config, plan) -> TrainingMember:
        half = self.base.compute_dtype == torch.float16
        return TrainingMember(self._model.new_adapter(config), self.settings.training, plan, half)
