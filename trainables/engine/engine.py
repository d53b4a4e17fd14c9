"""Decides what happens next on one base model: measuring alone, training together, evaluating, finishing.

One thread calls `work` again and again; all else that touches residents runs between its units, on the same thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from search_spaces.footprint import Footprint
from search_spaces.trial_config import TrialConfig
from trainables.base_model.load import BaseModel
from trainables.dataset.batches import Plan, batch_plan, of_like_length
from trainables.dataset.prepared import PreparedDataset
from trainables.engine.adapter_handover import AdapterHandover, KeepAdapter
from trainables.engine.bench import Bench, basis
from trainables.engine.clock import HostClock
from trainables.engine.failures import (
    Unit,
    attempt,
    attempt_alone,
    end_as_kin,
    end_diverged,
    end_failed,
    end_lost,
    failure_of,
)
from trainables.engine.measured_costs import MeasuredCosts
from trainables.engine.outcomes import complete_outcome, stopped_outcome
from trainables.engine.pass_budget import PassBudget
from trainables.engine.quality_bench import QualityBench
from trainables.engine.residents import Resident, suspect_first
from trainables.engine.waiting import WaitingRoom
from trainables.engine.warm_up import warm_up
from trainables.limits import DEFAULT_PACK
from trainables.measure.peak_memory import AllocatorPeak
from trainables.measure.training_cost import NotFiniteError
from trainables.memory.offload import RESIDENT, Offload
from trainables.packed.layer_inputs.layer_inputs import layer_inputs
from trainables.packed.member import TrainingMember, Update, in_turn
from trainables.packed.optimizers.staging import Staging
from trainables.packed.packed_model import PackedModel
from trainables.packed.training import accumulate_gradients
from trainables.protocol import JoinRequest, NotResidentError, Outcome, ResidentStatus
from trainables.settings import TrialSettings
from trainables.timeline import timeline

GRACE_SECONDS, GRACE_OF_STEP = 0.05, 0.05  # how long a step waits for adapters that have just reported

NoteAlone = Callable[[str, bool], None]


class Engine:
    """One base model, its data, and the adapters resident on it.

    `keep_adapter` takes a finished adapter's files, on a thread of its own; without it none are made. `between` is
    called between two passes; `note_alone` before and after a suspect works, so that the keeper knows whose work it was
    if the process dies. Costs are kept as measured by the study in `study_directory`, and earlier studies' taken over;
    neither where it is empty. `offload` says what waits in host memory.
    """

    def __init__(
        self,
        settings: TrialSettings,
        base: BaseModel,
        dataset: PreparedDataset,
        keep_adapter: KeepAdapter | None = None,
        between: Callable[[], None] = lambda: None,
        note_alone: NoteAlone = lambda trial_id, begins: None,
        study_directory: str = "",
        offload: Offload = RESIDENT,
    ) -> None:
        self.settings = settings
        self.base = base
        self.dataset = dataset
        self.residents: dict[str, Resident] = {}
        self._handover = AdapterHandover(keep_adapter, base.info.path, settings.base_model.revision)
        self._host_between = between
        self._note_alone = note_alone
        self._model = PackedModel(base.model, blocks=base.blocks)
        self._staging = Staging(devices=base.devices) if offload.optimizer_state else None
        self._incarnations: dict[str, int] = {}
        self._bench = Bench(settings, base, dataset, offload=offload)
        self._budget = PassBudget.of(base, settings, offload)
        self._quality = QualityBench(self._bench, self._model, self._budget, self._between)
        self._costs = MeasuredCosts(self._bench, self._model, self._budget, self.new_member, study_directory)
        self._waiting = WaitingRoom(self._bench, self._budget)
        self._pack_peak = AllocatorPeak(base.devices)
        self._last_step_seconds = 0.0
        self._is_warm = base.device.type == "cpu"  # where nothing is compiled
        self._clock = HostClock()
        self._pack_limit = settings.hardware.max_adapters_per_gpu or DEFAULT_PACK[base.device.type]
        base.model.train()
        if settings.training.gradient_checkpointing:
            options = {"use_reentrant": False, "preserve_rng_state": False}  # dropout has its own generator
            base.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
            self._model.layer_inputs = layer_inputs(offload.layer_inputs)

    def warm_up(self) -> None:
        """Takes a scratch step, so that the first trial need not wait for kernels to compile."""
        with timeline.stage("warm-up"):
            warm_up(self._model, self.new_member, self.dataset.train.rows)

    # -- what trials ask for ------------------------------------------------------------------------------------------

    def join(self, request: JoinRequest) -> None:
        """Takes an adapter in, from its checkpoint where it has one. Raises NotResidentError for a stale one."""
        newest = self._incarnations.get(request.trial_id, -1)
        if request.incarnation <= newest:
            message = f"{request.trial_id}: incarnation {request.incarnation} is stale, {newest} has been here"
            raise NotResidentError(message)
        lengths = [len(row.tokens) for row in self.dataset.train.rows]
        plan = of_like_length(batch_plan(len(lengths), self.settings.training, request.config.seed), lengths)
        # Off the card until it trains: nothing is to be moved aside for what is measured before that.
        off_the_card = None if self.base.device.type == "cpu" else torch.device("cpu")
        member = self.new_member(request.config, plan, off_the_card)
        rungs = self.settings.rungs.steps(member.total_steps)
        resident = Resident(request.trial_id, request.incarnation, member, rungs, basis(self._bench))
        resident.suspect = request.suspect
        if request.state is not None:
            resident.restore(request.state)
        self._incarnations[request.trial_id] = request.incarnation
        self.residents[request.trial_id] = resident

    def leave(self, trial_id: str, incarnation: int) -> None:
        """Removes an adapter; one that has left, or a stale incarnation, changes nothing."""
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

    def seconds(self) -> dict[str, float]:
        """Seconds by kind of work since the first pack started, with `waiting` and `all`."""
        return self._clock.seconds(time.monotonic())

    def new_member(self, config: TrialConfig, plan: Plan, device: torch.device | None = None) -> TrainingMember:
        """A fresh adapter with its optimizer, at the start of a plan; on `device`, or where its layers are."""
        half, adapter = self.base.compute_dtype == torch.float16, self._model.new_adapter(config, device)
        return TrainingMember(adapter, self.settings.training, plan, half, self._model.homes(adapter), self._staging)

    # -- what the host's thread does ----------------------------------------------------------------------------------

    def work(self) -> bool:
        """Does one unit of work; False where there is nothing to do now."""
        if not self._is_warm:
            self._is_warm = True
            if not self.residents:  # else the first's own work compiles what it needs, and no more
                self.warm_up()
                return True
        for work, unit, most in (
            ("measuring", self._measure, 1),
            ("evaluating", self._evaluate, self._pack_limit),
            ("testing", self._test, self._pack_limit),
            ("sampling", self._quality.sample, self._pack_limit),
            ("finishing", self._finish, 1),
        ):
            ready = [one for one in self.residents.values() if one.next_work == work and self._can_continue(one)]
            if ready:
                self._do(unit, ready, most)
                return True
        return self._train()

    def _between(self) -> None:
        """Lets the host serve its messages, unless one is tried alone: nobody may join it on the device."""
        if not self._bench.tries_alone:
            self._host_between()

    def _can_continue(self, resident: Resident) -> bool:
        """Whether it need not wait for a handover, its own or another's: adapters are handed over one by one."""
        if resident.next_work != "finishing":
            return True
        return resident.handover.done() if resident.handover else not self._handover.busy

    def _do(self, unit: Unit, ready: Sequence[Resident], most: int) -> None:
        """One unit of work, of at most so many; what fails ends the guilty one alone.

        Who waits off the device is left out until there is room, or nobody else has anything to do.
        """
        work = ready[0].next_work
        here = ready if work == "measuring" else [one for one in ready if self._waiting.is_back(one)]
        ready = [one for one in ready if one.outcome is None]
        if not ready:
            return
        chosen = suspect_first(here or ready, most if here else 1)
        suspect = chosen[0] if chosen[0].suspect else None
        if suspect:
            self._note_alone(suspect.trial_id, True)
        others = [r for r in self.residents.values() if r not in chosen]  # ended ones too: they hold memory
        with self._clock.at_work(work):
            if here:
                attempt(unit, chosen, others, self._bench, self._budget)
            else:
                attempt_alone(unit, chosen[0], others, self._bench, tries=2)
        if suspect:
            self._note_alone(suspect.trial_id, False)

    def _train(self) -> bool:
        ready = [r for r in self.residents.values() if r.stage == "training" and r.awaiting_since is None]
        if not ready and not self._handover.busy:
            return False
        if not ready or self._worth_waiting():
            time.sleep(0.002)
            return True
        # Those first who have done the fewest steps: cohorts merge again.
        ready.sort(key=lambda resident: resident.member.step)
        self._do(self._step, ready, self._pack_limit)
        return True

    def _worth_waiting(self) -> bool:
        """Whether an adapter reported so recently that it may join this step: without waiting, packs split for good."""
        grace = max(GRACE_SECONDS, GRACE_OF_STEP * self._last_step_seconds)
        since = [r.awaiting_since for r in self.residents.values() if r.awaiting_since is not None]
        return any(time.monotonic() - moment < grace for moment in since)

    def _step(self, pack: Sequence[Resident]) -> None:
        started = time.perf_counter()
        self._pack_peak.restart()
        rows, members = self.dataset.train.rows, [resident.member for resident in pack]
        losses = accumulate_gradients(self._model, members, rows, self._budget.limits(members), self._between)
        self._note_pack_peak(pack)  # before the updates: a trial may end in its own, with its record
        updates = [Update(member, torch.tensor(loss)) for member, loss in zip(members, losses, strict=True)]
        for resident, (update, then) in zip(pack, in_turn(updates), strict=True):  # nobody was changed before here
            failure = failure_of(partial(self._apply, resident, update, then, len(pack)), [resident], self._bench)
            if failure:  # in company: no lack of memory is its own
                end_failed(resident, replace(failure, out_of_memory=False), self._bench)
        self._last_step_seconds = time.perf_counter() - started
        self._note_pack_peak(pack)
        for resident in pack:
            resident.note_speed(self._last_step_seconds)

    def _note_pack_peak(self, pack: Sequence[Resident]) -> None:
        peak = self._pack_peak.bytes()
        for resident in pack:
            resident.note_pack_peak(peak)

    def _apply(self, resident: Resident, update: Update, then: Update | None, pack_size: int) -> None:
        update.queue(then)
        result = update.result(self.dataset.train.rows)
        resident.suspect = False
        if result.divergence:
            end_diverged(resident, f"in optimizer step {result.step} {result.divergence}", self._bench)
        else:
            resident.note_step(result, pack_size)

    def _measure(self, chosen: Sequence[Resident]) -> None:
        (resident,) = chosen
        ran_out = self._bench.ran_out
        if verdict := ran_out.get(Footprint.of(resident.config)):
            end_as_kin(resident, verdict, self._bench)
            return
        if not self._costs.has(resident.config):
            self._handover.drain()  # its copies would be measured too
            try:
                self._costs.measure(resident, self.residents.values, self._between)
            except NotFiniteError as error:
                end_diverged(resident, str(error), self._bench)
                return
        resident.peak_memory_bytes = self._costs.known(resident.config).peak_memory_bytes
        resident.stage = resident.next_stage()

    def _evaluate(self, chosen: Sequence[Resident]) -> None:
        for resident, evaluation in zip(chosen, self._quality.evaluate(chosen), strict=True):
            if evaluation.finite:
                resident.note_evaluation(evaluation, partial(self._so_far, resident))
            else:
                end_lost(resident, evaluation, self._bench)

    def _test(self, chosen: Sequence[Resident]) -> None:
        self._quality.finish(chosen)
        for resident in chosen:
            if resident.final and not resident.final.finite:
                end_lost(resident, resident.final, self._bench)

    def _so_far(self, resident: Resident) -> Outcome:
        return stopped_outcome(self._bench, resident, self._costs.known(resident.config))

    def _finish(self, chosen: Sequence[Resident]) -> None:
        (resident,) = chosen
        if resident.handover is None:
            resident.handover = self._handover.begin(resident.trial_id, resident.member.adapter)
            return
        self._handover.end(resident.handover)
        resident.end(complete_outcome(self._bench, resident, self._costs.known(resident.config)))
