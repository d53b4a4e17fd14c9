"""Keeps one trial's state on a host: its stage, history, reports and outcome."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any

from search_spaces.trial_config import TrialConfig
from trainables.measure.evaluation import Evaluation
from trainables.packed.adapter_files import restore_training, training_state
from trainables.packed.member import StepResult, TrainingMember
from trainables.packed.optimization import evaluation_steps
from trainables.protocol import REPORT_STEPS, News, Outcome, Report, ResidentStatus, Stage


@dataclass
class History:
    """What was recorded of a training so far; it travels with its checkpoints."""

    curve: list[dict[str, Any]] = field(default_factory=list)
    pack_size_sum: int = 0
    pack_peak_memory_bytes: int | None = None  # the highest of its steps; None on a CPU
    loss_sum: float = 0.0  # since the last evaluation
    loss_steps: int = 0
    last_report_step: int = 0
    wall_seconds: float = 0.0
    train_seconds: float = 0.0  # of its training steps, other adapters' share included


class Resident:
    """One trial on a host: its member, its history, and the reports that its trial has not fetched yet."""

    def __init__(
        self,
        trial_id: str,
        incarnation: int,
        member: TrainingMember,
        rungs: Sequence[int] = (),
        basis: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """`rungs` are the optimizer steps after which the trial may be stopped; `basis` what its states depend on."""
        self.trial_id = trial_id
        self.incarnation = incarnation
        self.member = member
        self.history = History()
        self.reports: list[Report] = []
        self.outcome: Outcome | None = None
        self.evaluation: Evaluation | None = None  # the last one of the evaluation split
        self.final: Evaluation | None = None  # the one at the end, with accuracy
        self.test: Evaluation | None = None
        self.samples: tuple[dict[str, Any], ...] | None = None  # None: not written yet
        self.handover: Future[None] | None = None  # of its adapter's files; None: not begun
        self.stage: Stage = "measuring"
        self.awaiting_since: float | None = None  # reported; its trial has not said yet that it continues
        self.suspect = False  # it was on a host that died: it works alone until it has taken a step
        self.pack_size = 1
        self.peak_memory_bytes: int | None = None
        self.tokens_per_second: float | None = None
        self._step_tokens = 0
        self._joined = time.monotonic()
        self._rungs = tuple(rungs)
        self._basis = basis
        self._evaluation_steps = evaluation_steps(member.total_steps, member.training.evaluations, rungs)

    @property
    def config(self) -> TrialConfig:
        """The trial's configuration."""
        return self.member.adapter.config

    @property
    def wall_seconds(self) -> float:
        """Seconds on hosts, this one and those before."""
        return self.history.wall_seconds + time.monotonic() - self._joined

    def restore(self, state: bytes) -> None:
        """Continues from a checkpoint. Raises ValueError where it is another training's, or changed."""
        kept = restore_training(self.member, state, self._basis)
        try:
            self.history = History(**kept)
        except TypeError as error:
            raise ValueError(f"a checkpoint's history must be as it was written ({error})") from error

    def state(self) -> bytes:
        """A checkpoint of weights, optimizer and history."""
        history = replace(self.history, wall_seconds=self.wall_seconds)
        return training_state(self.member, asdict(history), self._basis)

    @property
    def next_work(self) -> str:
        """The work that comes next: its stage's, and in the finish first the last evaluation (testing) and samples."""
        if self.stage != "finishing":
            return self.stage
        return "testing" if self.final is None else "sampling" if self.samples is None else self.stage

    def next_stage(self) -> Stage:
        """What is due: an evaluation not taken yet, the finish, or the next step."""
        measured = self.history.curve[-1]["step"] if self.history.curve else -1
        if self.member.step in self._evaluation_steps and measured < self.member.step:
            return "evaluating"
        return "finishing" if self.member.step >= self.member.total_steps else "training"

    def note_step(self, result: StepResult, pack_size: int) -> None:
        """Takes a training step into the history."""
        self.evaluation = None  # it was of the weights before
        self.pack_size = pack_size
        self._step_tokens = result.tokens
        self.history.pack_size_sum += pack_size
        self.history.loss_sum += result.loss
        self.history.loss_steps += 1
        self.stage = self.next_stage()

    def note_speed(self, step_seconds: float) -> None:
        """Takes in how long its last step took, for the whole pack."""
        self.history.train_seconds += step_seconds
        self.tokens_per_second = self._step_tokens / step_seconds

    def note_pack_peak(self, peak_memory_bytes: int | None) -> None:
        """Takes in the allocator's peak of its last step, of the whole pack; None where there is none."""
        highest = self.history.pack_peak_memory_bytes
        if peak_memory_bytes is not None:
            self.history.pack_peak_memory_bytes = max(peak_memory_bytes, highest or 0)

    def note_evaluation(self, evaluation: Evaluation, so_far: Callable[[], Outcome | None] = lambda: None) -> None:
        """Takes an evaluation into the curve, and reports it at a rung, or where enough steps have passed.

        `so_far` returns what a report carries: the outcome that the trial has if it is stopped here.
        """
        self.evaluation = evaluation
        history, member = self.history, self.member
        loss = history.loss_sum / history.loss_steps if history.loss_steps else None
        known = (member.last_learning_rate, self.peak_memory_bytes, member.total_steps)
        report = Report(member.step, loss, evaluation.perplexity, *known)
        history.curve.append(_curve_point(report))
        history.loss_sum, history.loss_steps = 0.0, 0
        if self._report_is_due():
            history.last_report_step = member.step
            self.reports.append(replace(report, so_far=so_far()))
            self.awaiting_since = time.monotonic()
        self.stage = self.next_stage()

    def _report_is_due(self) -> bool:
        step, apart = self.member.step, self.member.step - self.history.last_report_step
        return step < self.member.total_steps and (step in self._rungs or apart >= REPORT_STEPS)

    def news(self, seen: int) -> News:
        """The reports from number `seen` on, the step, and the outcome once there is one."""
        return News(tuple(self.reports[seen:]), self.outcome, self.member.step)

    def end(self, outcome: Outcome) -> None:
        """Ends the trial; only its outcome is left to fetch."""
        self.outcome = outcome
        self.stage = "ended"

    @property
    def mean_pack_size(self) -> float | None:
        """Members per training step, itself counted; None before the first."""
        return self.history.pack_size_sum / self.member.step if self.member.step else None

    def status(self) -> ResidentStatus:
        """The trial's line in the live table."""
        curve, history = self.history.curve, self.history
        loss = history.loss_sum / history.loss_steps if history.loss_steps else None
        return ResidentStatus(
            trial_id=self.trial_id,
            stage=self.stage,
            step=self.member.step,
            total_steps=self.member.total_steps,
            train_loss=loss if loss is not None else (curve[-1]["train_loss"] if curve else None),
            perplexity=curve[-1]["perplexity"] if curve else None,
            pack_size=self.pack_size,
            tokens_per_second=self.tokens_per_second,
            peak_memory_bytes=self.peak_memory_bytes,
        )


def _curve_point(report: Report) -> dict[str, Any]:
    return {name: getattr(report, name) for name in ("step", "train_loss", "perplexity", "learning_rate")}


def suspect_first(chosen: Sequence[Resident], most: int) -> Sequence[Resident]:
    """Returns a suspect alone where there is one, else as many as may work together."""
    suspects = [resident for resident in chosen if resident.suspect]
    return suspects[:1] or chosen[:most]
