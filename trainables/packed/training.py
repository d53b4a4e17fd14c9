"""Takes one optimizer step for all adapters that are ready.

Parameters are disjoint, so each adapter gets the gradient it would get alone: its loss is the mean over the target
tokens of its own optimizer step, and clipping, schedule, loss scaler and AdamW are its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from search_spaces.footprint import Footprint
from trainables.dataset.rows import Row
from trainables.packed.adapter import LoraAdapter, PackedRows
from trainables.packed.member import StepResult, TrainingMember, Update, discard_gradients, in_turn
from trainables.packed.packed_model import PackedModel
from trainables.packed.passes import MicroBatch, PassLimits, plan_passes

WHOLE_STEP = PassLimits(max_tokens=2**40, fixed_tokens=2**40)  # everything in one pass


def train_step(
    model: PackedModel,
    members: Sequence[TrainingMember],
    rows: Sequence[Row],
    limits: PassLimits = WHOLE_STEP,
    between: Callable[[], None] = lambda: None,
) -> list[StepResult]:
    """Takes every member's next optimizer step together; returns results in the members' order.

    `between` is called between passes. A member whose loss is not finite is left as it was before the step. Whatever is
    raised, torch.OutOfMemoryError for one, gradients are discarded and no member is changed.
    """
    try:
        losses = _accumulated(model, members, rows, limits, between)
        updates = [Update(member, loss) for member, loss in zip(members, losses, strict=True)]
    except Exception:
        discard_gradients(members)
        raise
    for update, then in in_turn(updates):
        update.queue(then)
    return [update.result(rows) for update in updates]


def accumulate_gradients(
    model: PackedModel,
    members: Sequence[TrainingMember],
    rows: Sequence[Row],
    limits: PassLimits = WHOLE_STEP,
    between: Callable[[], None] = lambda: None,
) -> list[float]:
    """Accumulates the gradients of each member's next step; returns each member's mean nats per target.

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
    """Does as `accumulate_gradients`, with the losses left on the device."""
    losses = torch.zeros(len(members), device=model.head.device)
    for one in plan_passes(micro_batches(members, rows), limits):
        losses += run_pass(model, members, rows, one)
        between()
    return losses


def micro_batches(members: Sequence[TrainingMember], rows: Sequence[Row]) -> list[MicroBatch]:
    """Lists all micro-batches of the members' next steps."""
    return [
        MicroBatch(place, number, len(batch), max(len(rows[row].tokens) for row in batch))
        for place, member in enumerate(members)
        for number, batch in enumerate(member.plan[member.step])
    ]


def run_pass(
    model: PackedModel, members: Sequence[TrainingMember], rows: Sequence[Row], one: Sequence[MicroBatch]
) -> torch.Tensor:
    """Adds the gradients of a pass' micro-batches; returns their parts of the members' losses."""
    one = sorted(one, key=lambda batch: (batch.rows, Footprint.of(members[batch.member].adapter.config), batch.member))
    own = [members[batch.member] for batch in one]
    numbers = [member.plan[member.step][batch.number] for member, batch in zip(own, one, strict=True)]
    groups = [[rows[row] for row in some] for some in numbers]
    batch = collate(groups, model.device)
    keys = [dropout_key(member.step, batch.number) for member, batch in zip(own, one, strict=True)]
    packed = pack_rows([member.adapter for member in own], groups, keys)
    numbers_of_hidden = batch.input_ids.numel() * model.head.shape[1]
    with model.rows_of(packed) as causal, model.layer_inputs.of_pass(numbers_of_hidden) as forward:
        with forward:
            hidden = target_hidden(causal, batch)
        nats = model.target_nats(hidden, batch.targets)
        parts = torch.split(nats, batch.targets_per_group)
        means = torch.stack([part.sum() / step_targets(member, rows) for part, member in zip(parts, own, strict=True)])
        scales = torch.tensor([member.scaler.scale for member in own], device=means.device)
        (means * scales).sum().backward()
    places = torch.tensor([batch.member for batch in one], device=means.device)
    return torch.zeros(len(members), device=means.device).index_add_(0, places, means.detach())


def micro_step(model: PackedModel, members: Sequence[TrainingMember], rows: Sequence[Row], number: int) -> torch.Tensor:
    """Adds the gradients of micro-batch `number` of each member's next step, in one pass; returns parts of losses."""
    return run_pass(model, members, rows, [one for one in micro_batches(members, rows) if one.number == number])


def dropout_key(step: int, micro: int) -> int:
    """Returns a number of its own for each micro-batch of a training."""
    return step * 65536 + micro


def step_targets(member: TrainingMember, rows: Sequence[Row]) -> int:
    """Counts the target tokens of the member's whole next optimizer step, which its loss is the mean over."""
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
    """Returns the groups' rows as one batch, in order."""
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
    """Says which rows of the groups' batch belong to which adapter."""
    packed: list[PackedRows] = []
    first = 0
    for adapter, group, key in zip(adapters, groups, keys, strict=True):
        longest = max(len(row.tokens) for row in group)
        packed.append(PackedRows(adapter, slice(first, first + len(group)), longest, key))
        first += len(group)
    return packed


def target_hidden(causal: Any, batch: Batch) -> torch.Tensor:
    """Returns the last hidden states at the positions before the targets, n x d, on the head's device."""
    hidden = causal.get_decoder()(input_ids=batch.input_ids, use_cache=False).last_hidden_state
    chosen = hidden.reshape(-1, hidden.shape[-1])[batch.positions.to(hidden.device)]
    return chosen.to(causal.get_output_embeddings().weight.device)
