"""Holds one adapter in training, and takes its part of an optimizer step: unscale, clip, AdamW."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.optim.adamw import adamw

from trainables.dataset.batches import Plan
from trainables.dataset.rows import Row
from trainables.packed.adapter import LoraAdapter
from trainables.packed.optimization import LossScaler, learning_rate_at
from trainables.settings import TrainingSettings


class TrainingMember:
    """An adapter in training: its weights, optimizer, loss scaler, and its place in the data."""

    def __init__(self, adapter: LoraAdapter, training: TrainingSettings, plan: Plan, half: bool) -> None:
        self.adapter = adapter
        self.training = training
        self.plan = plan
        self.scaler = LossScaler.for_half() if half else LossScaler()
        self.optimizer = torch.optim.AdamW(
            adapter.parameters(), lr=adapter.config.learning_rate, weight_decay=training.weight_decay, fused=True
        )
        for parameter in adapter.parameters():  # there from the start: a step's update needs no more memory
            self.optimizer.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        self.away = False  # its tensors are parked off the device
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
    """The outcome of one adapter's optimizer step; `loss` is the mean nats per target token."""

    loss: float
    gradient_norm: float
    learning_rate: float
    tokens: int
    applied: bool  # False: gradients overflowed under the loss scaler, the step was skipped
    diverged: bool  # the loss, or gradients that no smaller scale can mend, are not finite


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


class Update:
    """One member's clipped AdamW step: queued on the device, its outcome read when all members' are queued.

    Whether loss and gradients are finite is decided on the device too, so that a pack's updates wait for nothing:
    AdamW's kernel divides gradients by `grad_scale`, and leaves everything as it was where `found_inf` is 1.
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

    def queue(self) -> None:
        """Unscales, clips and steps."""
        optimizer = self._member.optimizer
        (group,) = optimizer.param_groups
        states = [optimizer.state[parameter] for parameter in self._parameters]
        first, second, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
        beta1, beta2 = group["betas"]
        with torch.no_grad():
            adamw(
                self._parameters, self._gradients, first, second, [], steps, fused=True, grad_scale=self._grad_scale,
                found_inf=self._found_inf, amsgrad=False, maximize=False, beta1=beta1, beta2=beta2,
                lr=self._member.learning_rate, weight_decay=group["weight_decay"], eps=group["eps"],
            )  # fmt: skip

    def result(self, rows: Sequence[Row]) -> StepResult:
        """Waits for the step, and moves the member on in its plan unless its loss was not finite."""
        member, learning_rate = self._member, self._member.learning_rate
        loss, norm = float(self._loss), float(self._norm)
        discard_gradients([member])
        tokens = sum(len(rows[number].tokens) for micro in member.plan[member.step] for number in micro)
        if not math.isfinite(loss):
            return StepResult(loss, math.nan, learning_rate, tokens, applied=False, diverged=True)
        applied = math.isfinite(norm)
        diverged = not applied and member.scaler.at_floor
        member.scaler = member.scaler.after(applied)
        member.step += 1
        member.train_tokens += tokens
        return StepResult(loss, norm, learning_rate, tokens, applied, diverged)


def total_norm(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Returns the Euclidean norm of one member's gradients, all together."""
    return torch.nn.utils.get_total_norm(gradients)


def clipping(norm: torch.Tensor, limit: float) -> torch.Tensor:
    """Returns the factor that brings gradients of this norm down to `limit` (0: no limit), as torch clips."""
    return torch.clamp((limit or math.inf) / (norm + 1e-6), max=1.0)
