"""The adapters that live on a host, and where each is on its way."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from search_spaces.trial_config import TrialConfig
from trainables.adapter_files import restore_training, training_state
from trainables.evaluation import Evaluation
from trainables.optimization import evaluation_steps
from trainables.packed_training import StepResult, TrainingMember
from trainables.protocol import REPORT_STEPS, News, Outcome, Phase, Report, ResidentStatus


@dataclass
class History:
    """What a training leaves behind as it goes; travels with its checkpoints."""

    curve: list[dict[str, Any]] = field(default_factory=list)
    pack_size_sum: int = 0
    loss_sum: float = 0.0  # since the last evaluation
    loss_steps: int = 0
    last_report_step: int = 0
    wall_seconds: float = 0.0


class Resident:
    """One trial on a host: its member, its history, and the mail that its trial has not fetched yet."""

    def __init__(self, trial_id: str, incarnation: int, member: TrainingMember) -> None:
        self.trial_id = trial_id
        self.incarnation = incarnation
        self.member = member
        self.history = History()
        self.reports: list[Report] = []
        self.outcome: Outcome | None = None
        self.evaluation: Evaluation | None = None
        self.phase: Phase = "measuring"
        self.awaiting_since: float | None = None  # reported; its trial has not said yet that it goes on
        self.alone = False  # a pack with it has failed: it steps alone until the guilty one is known
        self.pack_size = 1
        self.peak_memory_bytes: int | None = None
        self.tokens_per_second: float | None = None
        self._joined = time.monotonic()
        self._evaluation_steps = evaluation_steps(member.total_steps, member.training.evaluations)

    @property
    def config(self) -> TrialConfig:
        """The trial's configuration."""
        return self.member.adapter.config

    @property
    def wall_seconds(self) -> float:
        """Time on hosts, this one and those before."""
        return self.history.wall_seconds + time.monotonic() - self._joined

    def restore(self, state: bytes) -> None:
        """Goes on from a checkpoint."""
        self.history = History(**restore_training(self.member, state))

    def state(self) -> bytes:
        """A checkpoint of weights, optimizer and history."""
        history = replace(self.history, wall_seconds=self.wall_seconds)
        return training_state(self.member, asdict(history))

    def next_phase(self) -> Phase:
        """What is due: an evaluation not yet taken, the finish, or the next step."""
        measured = self.history.curve[-1]["step"] if self.history.curve else -1
        if self.member.step in self._evaluation_steps and measured < self.member.step:
            return "evaluating"
        return "finishing" if self.member.step >= self.member.total_steps else "training"

    def note_step(self, result: StepResult, pack_size: int) -> None:
        """Takes a training step into the history."""
        self.pack_size = pack_size
        self.history.pack_size_sum += pack_size
        self.history.loss_sum += result.loss
        self.history.loss_steps += 1
        self.phase = self.next_phase()

    def note_evaluation(self, evaluation: Evaluation) -> None:
        """Takes an evaluation into the curve, and reports it where enough steps have passed."""
        self.evaluation = evaluation
        history = self.history
        loss = history.loss_sum / history.loss_steps if history.loss_steps else None
        report = Report(self.member.step, loss, evaluation.perplexity, self.member.last_learning_rate)
        history.curve.append(asdict(report))
        history.loss_sum, history.loss_steps = 0.0, 0
        if self.member.step - history.last_report_step >= REPORT_STEPS and self.member.step < self.member.total_steps:
            history.last_report_step = self.member.step
            self.reports.append(report)
            self.awaiting_since = time.monotonic()
        self.phase = self.next_phase()

    def news(self, seen: int) -> News:
        """Reports from number `seen` on; asking says that the trial goes on."""
        return News(tuple(self.reports[seen:]), self.outcome, self.member.step)

    def end(self, outcome: Outcome) -> None:
        """The trial is over; only its mail is left to fetch."""
        self.outcome = outcome
        self.phase = "ended"

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
            phase=self.phase,
            step=self.member.step,
            total_steps=self.member.total_steps,
            train_loss=loss if loss is not None else (curve[-1]["train_loss"] if curve else None),
            perplexity=curve[-1]["perplexity"] if curve else None,
            pack_size=self.pack_size,
            tokens_per_second=self.tokens_per_second,
            peak_memory_bytes=self.peak_memory_bytes,
        )


class Parked:
    """A member whose tensors are moved out of the way while another is measured alone.

    From a card they go to host memory; on a CPU, where the process itself is measured, to a temporary file.
    """

    def __init__(self, member: TrainingMember, device: torch.device) -> None:
        self._member = member
        self._file: Path | None = None
        tensors = _tensors(member)
        if device.type == "cpu":
            with tempfile.NamedTemporaryFile(suffix=".parked", delete=False) as file:
                self._file = Path(file.name)
            torch.save([tensor.data for tensor in tensors], self._file)
        else:
            self._moved = [tensor.data.to("cpu") for tensor in tensors]
        self._device = device
        for tensor in tensors:
            tensor.data = torch.empty(0, dtype=tensor.dtype, device=device)

    def back(self) -> None:
        """Puts the tensors back, bit for bit."""
        if self._file:
            kept = torch.load(self._file, weights_only=True)
            self._file.unlink()
        else:
            kept = [tensor.to(self._device) for tensor in self._moved]
        for tensor, data in zip(_tensors(self._member), kept, strict=True):
            tensor.data = data


def _tensors(member: TrainingMember) -> list[torch.Tensor]:
    """The large tensors of a member: weights and moments (AdamW's step counters stay)."""
    moments = [
        value
        for parameter in member.adapter.parameters()
        for name, value in member.optimizer.state.get(parameter, {}).items()
        if name != "step"
    ]
    return [*member.adapter.parameters(), *moments]
