"""One optimizer step for all adapters that are ready.

Parameters are disjoint, so each adapter gets the gradient it would get alone: its loss is the mean over the target
tokens of its own optimizer step, and clipping, schedule, loss scaler and AdamW are its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.optim.adamw import adamw

from trainables.dataset import Row
from trainables.optimization import LossScaler, learning_rate_at
from trainables.packed_lora import LoraAdapter, PackedModel, PackedRows
from trainables.passes import MicroBatch, PassLimits, plan_passes
from trainables.settings import TrainingSettings
from trainables.target_loss import target_nats

Plan = tuple[tuple[tuple[int, ...], ...], ...]  # optimizer steps of micro-batches of row numbers

WHOLE_STEP = PassLimits(max_tokens=2**40, fixed_tokens=2**40)  # everything in one pass


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
    limits: PassLimits = WHOLE_STEP,
    between: Callable[[], None] = lambda: None,
) -> list[StepResult]:
    """Takes every member's next optimizer step together; answers in the members' order.

    `between` is called between passes. A member whose loss is not finite is left as it was before the step. Whatever is
    raised, torch.OutOfMemoryError for one, gradients are discarded and no member is changed.
    """
    try:
        losses = _accumulated(model, members, rows, limits, between)
        updates = [_Update(member, loss) for member, loss in zip(members, losses, strict=True)]
    except Exception:
        discard_gradients(members)
        raise
    for update in updates:
        update.queue()
    return [update.result(rows) for update in updates]


def accumulate_gradients(
    model: PackedModel,
    members: Sequence[TrainingMember],
    rows: Sequence[Row],
    limits: PassLimits = WHOLE_STEP,
    between: Callable[[], None] = lambda: None,
) -> list[float]:
    """Forward and backward over all micro-batches of each member's next step; answers each member's mean nats.

    Micro-batches of like length go through the base model together, several of one member too: `plan_passes`.
    """
    return _accumulated(model, members, rows, limits, between).tolist()


def _accumulated(
    model: PackedModel,
    members: Sequence[TrainingMember],
    rows: Sequence[Row],
    limits: PassLimits,
    between: Callable[[], None],
) -> torch.Tensor:
    """`accumulate_gradients`, with the losses left on the device."""
    losses = torch.zeros(len(members), device=model.device)
    for one in plan_passes(micro_batches(members, rows), limits):
        losses += run_pass(model, members, rows, one)
        between()
    return losses


def micro_batches(members: Sequence[TrainingMember], rows: Sequence[Row]) -> list[MicroBatch]:
    """All micro-batches of the members' next steps."""
    return [
        MicroBatch(place, number, len(batch), max(len(rows[row].tokens) for row in batch))
        for place, member in enumerate(members)
        for number, batch in enumerate(member.plan[member.step])
    ]


def run_pass(
    model: PackedModel, members: Sequence[TrainingMember], rows: Sequence[Row], one: Sequence[MicroBatch]
) -> torch.Tensor:
    """Adds the gradients of a pass' micro-batches; answers their parts of the members' losses."""
    one = sorted(one, key=lambda batch: (_likeness(members[batch.member]), batch.member, batch.number))
    own = [members[batch.member] for batch in one]
    numbers = [member.plan[member.step][batch.number] for member, batch in zip(own, one, strict=True)]
    groups = [[rows[row] for row in some] for some in numbers]
    batch = collate(groups, model.device)
    keys = [dropout_key(member.step, batch.number) for member, batch in zip(own, one, strict=True)]
    with model.rows_of(pack_rows([member.adapter for member in own], groups, keys)) as causal:
        hidden = target_hidden(causal, batch)
        nats = target_nats(hidden, model.head, batch.targets)
        parts = torch.split(nats, batch.targets_per_group)
        means = torch.stack([part.sum() / step_targets(member, rows) for part, member in zip(parts, own, strict=True)])
        scales = torch.tensor([member.scaler.scale for member in own], device=means.device)
        (means * scales).sum().backward()
    places = torch.tensor([batch.member for batch in one], device=means.device)
    return torch.zeros(len(members), device=means.device).index_add_(0, places, means.detach())


def _likeness(member: TrainingMember) -> tuple[object, ...]:
    """Members of equal likeness share batched products where their rows are neighbours."""
    config = member.adapter.config
    return sorted(config.target_modules), config.rank, config.lora_dropout > 0


def micro_step(model: PackedModel, members: Sequence[TrainingMember], rows: Sequence[Row], number: int) -> torch.Tensor:
    """Adds the gradients of micro-batch `number` of each member's next step, in one pass; their parts of the losses."""
    return run_pass(model, members, rows, [one for one in micro_batches(members, rows) if one.number == number])


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
        for parameter in member.adapter.parameters():
            parameter.grad = None


def apply_gradients(member: TrainingMember, rows: Sequence[Row], loss: float) -> StepResult:
    """Unscale, clip and step one member; an optimizer step is counted even where an overflow skipped it."""
    update = _Update(member, torch.tensor(loss))
    update.queue()
    return update.result(rows)


class _Update:
    """One member's clipped AdamW step: queued on the device, its outcome read when all members' are queued.

    Whether loss and gradients are finite is decided on the device too, so that a pack's updates wait for nothing: AdamW's
    kernel divides gradients by `grad_scale`, and leaves everything as it was where `found_inf` is 1.
    """

    def __init__(self, member: TrainingMember, loss: torch.Tensor) -> None:
        self._member = member
        self._loss = loss
        self._parameters = [parameter for parameter in member.adapter.parameters() if parameter.grad is not None]
        self._gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        self._norm = total_norm(self._gradients) / member.scaler.scale
        finite = torch.isfinite(self._norm) & torch.isfinite(loss).to(self._norm.device)
        self._found_inf = (~finite).float()
        self._grad_scale = member.scaler.scale / clipping(self._norm, member.training.max_grad_norm)

    def queue(self) -> None:
        """Unscales, clips and steps."""
        optimizer = self._member.optimizer
        (group,) = optimizer.param_groups
        states = [optimizer.state[parameter] for parameter in self._parameters]
        moments = [[state[name] for state in states] for name in ("exp_avg", "exp_avg_sq")]
        beta1, beta2 = group["betas"]
        with torch.no_grad():
            adamw(
                self._parameters, self._gradients, *moments, [], [state["step"] for state in states], fused=True,
                grad_scale=self._grad_scale, found_inf=self._found_inf, amsgrad=False, maximize=False,
                beta1=beta1, beta2=beta2, lr=self._member.learning_rate, weight_decay=group["weight_decay"],
                eps=group["eps"],
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
    """The Euclidean norm of all of one member's gradients together."""
    return torch.nn.utils.get_total_norm(gradients)


def clipping(norm: torch.Tensor, limit: float) -> torch.Tensor:
    """What gradients are multiplied by so that their norm is at most `limit` (0: no limit), as torch clips."""
    return torch.clamp((limit or math.inf) / (norm + 1e-6), max=1.0)
