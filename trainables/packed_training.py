"""One optimizer step for all adapters that are ready.

Parameters are disjoint, so each adapter gets the gradient it would get alone: its loss is the mean over the target tokens
of its own optimizer step, and clipping, schedule, loss scaler and AdamW are its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from trainables.dataset import Row
from trainables.optimization import LossScaler, learning_rate_at
from trainables.packed_lora import LoraAdapter, PackedModel, PackedRows
from trainables.settings import TrainingSettings
from trainables.target_loss import target_nats

Plan = tuple[tuple[tuple[int, ...], ...], ...]  # optimizer steps of micro-batches of row numbers


class TrainingMember:
    """An adapter in training: its weights, optimizer, loss scaler, and its place in the data."""

    def __init__(self, adapter: LoraAdapter, training: TrainingSettings, plan: Plan, half: bool) -> None:
        self.adapter = adapter
        self.training = training
        self.plan = plan
        self.scaler = LossScaler.for_half() if half else LossScaler()
        self.optimizer = torch.optim.AdamW(
            adapter.parameters(), lr=adapter.config.learning_rate, weight_decay=training.weight_decay
        )
        self.step = 0  # optimizer steps done
        self.train_tokens = 0

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return len(self.plan)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return self._learning_rate_at(self.step)

    @property
    def last_learning_rate(self) -> float:
        """The learning rate of the step before (before the first: of the first)."""
        return self._learning_rate_at(max(0, self.step - 1))

    def _learning_rate_at(self, step: int) -> float:
        return learning_rate_at(step, self.total_steps, self.adapter.config.learning_rate, self.training)


@dataclass(frozen=True)
class StepResult:
    """What one optimizer step did to one adapter: the mean nats per target token, and whether it was applied."""

    loss: float
    gradient_norm: float
    learning_rate: float
    tokens: int
    applied: bool  # False: gradients overflowed under the loss scaler, the step was skipped
    diverged: bool  # the loss, or gradients that no smaller scale can mend, are not finite


def train_step(
    model: PackedModel,
    members: Sequence[TrainingMember],
    rows: Sequence[Row],
    between: Callable[[], None] = lambda: None,
) -> list[StepResult]:
    """Takes every member's next optimizer step together; answers in the members' order.

    `between` is called between micro-batches. A member whose loss is not finite is left as it was before the step. Whatever is raised,
    torch.OutOfMemoryError for one, gradients are discarded and no member is changed.
    """
    try:
        nats = accumulate_gradients(model, members, rows, between)
    except Exception:
        discard_gradients(members)
        raise
    return [apply_gradients(member, rows, loss) for member, loss in zip(members, nats, strict=True)]


def accumulate_gradients(
    model: PackedModel,
    members: Sequence[TrainingMember],
    rows: Sequence[Row],
    between: Callable[[], None] = lambda: None,
) -> list[float]:
    """Forward and backward over all micro-batches of each member's next step; answers each member's mean nats."""
    losses = torch.zeros(len(members), device=model.device)
    for micro in range(max(len(member.plan[member.step]) for member in members)):
        losses += micro_step(model, members, rows, micro)
        between()
    return losses.tolist()


def micro_step(
    model: PackedModel, members: Sequence[TrainingMember], rows: Sequence[Row], micro: int
) -> torch.Tensor:
    """Adds the gradients of micro-batch number `micro` of each member's next step; answers its part of their losses."""
    taking_part = [index for index, member in enumerate(members) if micro < len(member.plan[member.step])]
    batches = [[rows[number] for number in members[index].plan[members[index].step][micro]] for index in taking_part]
    batch = collate(batches, model.device)
    packed = pack_rows([members[index].adapter for index in taking_part], batches, [
        dropout_key(members[index].step, micro) for index in taking_part
    ])  # fmt: skip
    with model.rows_of(packed) as causal:
        hidden = target_hidden(causal, batch)
        nats = target_nats(hidden, model.head, batch.targets)
        parts = torch.split(nats, batch.targets_per_group)
        totals = [step_targets(members[index], rows) for index in taking_part]
        means = torch.stack([part.sum() / total for part, total in zip(parts, totals, strict=True)])
        scales = torch.tensor([members[index].scaler.scale for index in taking_part], device=means.device)
        (means * scales).sum().backward()
    answer = torch.zeros(len(members), device=means.device)
    answer[taking_part] = means.detach()
    return answer


def dropout_key(step: int, micro: int) -> int:
    """A number of its own for each micro-batch of a training."""
    return step * 65536 + micro


def step_targets(member: TrainingMember, rows: Sequence[Row]) -> int:
    """Target tokens of the member's whole next optimizer step: what its loss is the mean over."""
    return sum(rows[number].target_tokens for micro in member.plan[member.step] for number in micro)


@dataclass(frozen=True)
class Batch:
    """Rows of one or more groups, padded on the right.

    Under a causal mask no real token sees what is padded on its right, so no attention mask is needed. `positions` are
    those before each target in the flattened batch.
    """

    input_ids: torch.Tensor  # rows x tokens
    positions: torch.Tensor
    targets: torch.Tensor
    targets_per_group: list[int]
    tokens: int  # without padding


def collate(groups: Sequence[Sequence[Row]], device: torch.device) -> Batch:
    """The groups' rows as one batch, in order."""
    rows = [row for group in groups for row in group]
    width = max(len(row.tokens) for row in rows)
    input_ids = torch.zeros(len(rows), width, dtype=torch.long)
    positions: list[int] = []
    for index, row in enumerate(rows):
        input_ids[index, : len(row.tokens)] = torch.tensor(row.tokens)
        positions += [index * width + place - 1 for place in range(row.target_start, len(row.tokens))]
    at = torch.tensor(positions, dtype=torch.long)
    targets = input_ids.reshape(-1)[at + 1]
    counts = [sum(row.target_tokens for row in group) for group in groups]
    tokens = sum(len(row.tokens) for row in rows)
    return Batch(input_ids.to(device), at.to(device), targets.to(device), counts, tokens)


def pack_rows(
    adapters: Sequence[LoraAdapter], groups: Sequence[Sequence[Row]], keys: Sequence[int | None]
) -> list[PackedRows]:
    """Which rows of the groups' batch belong to which adapter."""
    packed: list[PackedRows] = []
    first = 0
    for adapter, group, key in zip(adapters, groups, keys, strict=True):
        longest = max(len(row.tokens) for row in group)
        packed.append(PackedRows(adapter, slice(first, first + len(group)), longest, key))
        first += len(group)
    return packed


def target_hidden(causal: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Last hidden states at the positions before the targets, n x d."""
    hidden = causal.get_decoder()(input_ids=batch.input_ids, use_cache=False).last_hidden_state
    return hidden.reshape(-1, hidden.shape[-1])[batch.positions]


def discard_gradients(members: Sequence[TrainingMember]) -> None:
    """Forgets what was accumulated: the members are as they were before the step."""
    for member in members:
        member.optimizer.zero_grad(set_to_none=True)


def apply_gradients(member: TrainingMember, rows: Sequence[Row], loss: float) -> StepResult:
    """Unscale, clip and step one member; an optimizer step is counted even where an overflow skipped it."""
    learning_rate = member.learning_rate
    parameters = member.adapter.parameters()
    tokens = sum(len(rows[number].tokens) for micro in member.plan[member.step] for number in micro)
    if not math.isfinite(loss):
        discard_gradients([member])
        return StepResult(loss, math.nan, learning_rate, tokens, applied=False, diverged=True)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if member.scaler.scale != 1.0:
        torch._foreach_mul_(gradients, 1 / member.scaler.scale)
    limit = member.training.max_grad_norm or math.inf
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
    applied = math.isfinite(norm)
    if applied:
        member.optimizer.param_groups[0]["lr"] = learning_rate
        member.optimizer.step()
    diverged = not applied and member.scaler.at_floor
    member.scaler = member.scaler.after(applied)
    discard_gradients([member])
    member.step += 1
    member.train_tokens += tokens
    return StepResult(loss, norm, learning_rate, tokens, applied, diverged)
