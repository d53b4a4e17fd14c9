"""Holds one adapter in training, and takes its part of an optimizer step: unscale, clip, AdamW."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch

from trainables.dataset.batches import Plan
from trainables.dataset.rows import Row
from trainables.packed.adapter import LoraAdapter
from trainables.packed.not_finite import gradient_words, loss_words
from trainables.packed.optimization import LossScaler, learning_rate_at
from trainables.packed.optimizers.choice import optimizer_state
from trainables.packed.optimizers.rule import StepValues
from trainables.packed.optimizers.staging import Staging
from trainables.settings import TrainingSettings


class TrainingMember:
    """An adapter in training: its weights, optimizer, loss scaler, and its place in the data.

    `homes` are the devices that its parameters train on, in their order: where they are, unless it is made elsewhere
    because there was no room. While it is `away` from there, off the device, it can be read and restored, not trained.
    With `staging` its optimizer's state is in host memory, and is staged there for an update.
    """

    def __init__(
        self,
        adapter: LoraAdapter,
        training: TrainingSettings,
        plan: Plan,
        half: bool,
        homes: Sequence[torch.device] | None = None,
        staging: Staging | None = None,
    ) -> None:
        self.adapter = adapter
        there = [parameter.device for parameter in adapter.parameters()]
        self.homes = there if homes is None else list(homes)
        self.away = there != self.homes
        self.training = training
        self.plan = plan
        self.scaler = LossScaler.for_half() if half else LossScaler()
        self.optimizer = optimizer_state(training.optimizer, adapter.parameters(), self.away, staging)
        if not self.away:
            self.optimizer.prepare(self.homes)
        self.step = 0  # optimizer steps done
        self.train_tokens = 0

    @property
    def total_steps(self) -> int:
        """The optimizer steps of the whole training."""
        return len(self.plan)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return self._learning_rate_at(self.step)

    @property
    def last_learning_rate(self) -> float:
        """The learning rate of the step before; before the first, that of the first."""
        return self._learning_rate_at(max(0, self.step - 1))

    def _learning_rate_at(self, step: int) -> float:
        return learning_rate_at(step, self.total_steps, self.adapter.config.learning_rate, self.training)


@dataclass(frozen=True)
class StepResult:
    """The outcome of one adapter's optimizer step, of number `step` from 1 on.

    `loss` is the mean nats per target token. `divergence` says what was not finite where no smaller loss scale can mend
    it: the member is then as it was before the step.
    """

    step: int
    loss: float
    gradient_norm: float
    learning_rate: float
    tokens: int
    applied: bool  # False: gradients overflowed under the loss scaler, the step was skipped
    divergence: str | None = None

    @property
    def diverged(self) -> bool:
        """Whether the training cannot continue."""
        return self.divergence is not None


def discard_gradients(members: Sequence[TrainingMember]) -> None:
    """Drops accumulated gradients, so that the members are as they were before the step."""
    for member in members:
        for parameter in member.adapter.parameters():
            parameter.grad = None


def apply_gradients(member: TrainingMember, rows: Sequence[Row], loss: float) -> StepResult:
    """Unscales, clips and steps one member; the step counts even where an overflow skipped it."""
    update = Update(member, torch.tensor(loss))
    update.queue()
    return update.result(rows)


def in_turn(updates: Sequence[Update]) -> Iterator[tuple[Update, Update | None]]:
    """Goes through a pack's updates, each with the one that comes after it."""
    return zip_longest(updates, updates[1:])


class Update:
    """One member's clipped AdamW step: queued on the device, its outcome read when all members' are queued.

    Whether loss and gradients are finite is decided on the device too, so that a pack's updates wait for nothing: see
    `trainables.packed.optimizers.rule.StepValues`.
    """

    def __init__(self, member: TrainingMember, loss: torch.Tensor) -> None:
        self._member = member
        self._loss = loss
        trained = [(p, p.grad) for p in member.adapter.parameters() if p.grad is not None]
        self._parameters: list[torch.Tensor] = [parameter for parameter, _ in trained]
        self._gradients = [gradient for _, gradient in trained]
        self._norm = total_norm(self._gradients) / member.scaler.scale
        finite = torch.isfinite(self._norm) & torch.isfinite(loss).to(self._norm.device)
        self._found_inf = (~finite).float()
        self._grad_scale = member.scaler.scale / clipping(self._norm, member.training.max_grad_norm)

    def queue(self, then: Update | None = None) -> None:
        """Unscales, clips and steps; `then`: whose optimizer state is fetched meanwhile, where it is not there."""
        gradients = dict(zip(self._parameters, self._gradients, strict=True))
        learning_rate, weight_decay = self._member.learning_rate, self._member.training.weight_decay
        values = StepValues(learning_rate, weight_decay, self._grad_scale, self._found_inf)
        self._member.optimizer.update(gradients, values, then._member.optimizer if then else None)

    def result(self, rows: Sequence[Row]) -> StepResult:
        """Waits for the step, and moves the member on in its plan unless it has diverged."""
        member, step, learning_rate = self._member, self._member.step + 1, self._member.learning_rate
        loss, norm = float(self._loss), float(self._norm)
        divergence = self._divergence(loss, norm)
        discard_gradients([member])
        tokens = sum(len(rows[number].tokens) for micro in member.plan[member.step] for number in micro)
        applied = math.isfinite(loss) and math.isfinite(norm)
        if divergence is None:
            member.scaler = member.scaler.after(applied)
            member.step += 1
            member.train_tokens += tokens
            divergence = self._untrained()
        norm = norm if math.isfinite(loss) else math.nan
        return StepResult(step, loss, norm, learning_rate, tokens, applied, divergence)

    def _divergence(self, loss: float, norm: float) -> str | None:
        """Says what is not finite; None where nothing is, or a smaller loss scale may mend it."""
        adapter, scaler = self._member.adapter, self._member.scaler
        if not math.isfinite(loss):
            return loss_words(loss, adapter.named_tensors())
        if math.isfinite(norm) or not scaler.at_floor:
            return None
        names: dict[torch.Tensor, str] = {parameter: name for name, parameter in adapter.named_parameters().items()}
        trained = zip(self._parameters, self._gradients, strict=True)
        words = gradient_words(norm, {names[parameter]: gradient for parameter, gradient in trained})
        if scaler.scale == 1.0:
            return words
        return f"{words}, at the smallest loss scale ({scaler.scale:g}), after {scaler.skipped_steps} skipped steps"

    def _untrained(self) -> str | None:
        """Says at the end that no step was taken: the adapter is as it began."""
        member = self._member
        if member.step < member.total_steps or member.scaler.skipped_steps < member.total_steps:
            return None
        down = f"down to a loss scale of {member.scaler.scale * 2:g}"
        return f"the gradients overflowed {down}, so that every one of its {member.total_steps} steps was skipped"


def total_norm(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns the Euclidean norm of one member's gradients, all together."""
    return torch.nn.utils.get_total_norm(gradients)


def clipping(norm: torch.Tensor, limit: float) -> torch.Tensor:
    """Returns the factor that brings gradients of this norm down to `limit` (0: no limit), as torch clips."""
    return torch.clamp((limit or math.inf) / (norm + 1e-6), max=1.0)
