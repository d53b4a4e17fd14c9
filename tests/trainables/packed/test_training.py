"""Training in a pack equals training alone: every step's gradients, whole trainings, and faults planted on purpose."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.support.lora_cases import random_rows
from tests.support.small_models import shared, tiny_llama
from tests.support.trainables.packed_cases import (
    MEMBERS,
    SPLIT,
    make_member,
    make_model,
    peft_twin,
    relative,
    take_and_compare,
)
from trainables.base_model.load import load_base_model
from trainables.dataset.rows import Row
from trainables.packed import member as member_module
from trainables.packed import pack
from trainables.packed import training as training_module
from trainables.packed.member import TrainingMember
from trainables.packed.packed_model import PackedModel
from trainables.packed.training import accumulate_gradients, train_step
from trainables.settings import BaseModelSettings

ROWS = random_rows(30, longest=16)


def stories(precision: str) -> torch.nn.Module:
    settings = BaseModelSettings(str(shared("models/stories260K")))
    return load_base_model(settings, precision, "cpu", use_cache=False).model


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("count", [2, 5, 8])
def test_every_step_is_the_step_alone(count: int, padded: bool) -> None:
    """fp32: 1e-5 relative, over steps enough for B, schedules, warm-ups and moments to matter."""
    model = make_model(checkpointing=count == 5, padded=padded)
    members = [make_member(model, ROWS, number, steps=8) for number in range(count)]
    for step in range(4):
        take_and_compare(model, members, ROWS, limits=SPLIT if step % 2 else training_module.WHOLE_STEP)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("precision", ["nf4", "bf16"])
def test_every_step_is_the_step_alone_over_other_bases(precision: str, padded: bool) -> None:
    """1e-5 relative where these compute in fp32, as on a CPU without bf16 products; else within bf16's rounding."""
    base = stories(precision)
    model = make_model(base, checkpointing=True, padded=padded)
    members = [make_member(model, ROWS, number, steps=4) for number in (1, 3, 4, 6)]
    tolerance = 1e-5 if model.model.get_input_embeddings()(torch.zeros(1).long()).dtype == torch.float32 else 5e-2
    for _ in range(2):
        take_and_compare(model, members, ROWS, tolerance)


def test_gradients_are_pefts() -> None:
    """Of a mixed pack's members, each against PEFT's own mean over the step's target tokens: 1e-5 relative."""
    model = make_model(checkpointing=True)
    members = [make_member(model, ROWS, number, steps=6, lora_dropout=0.0) for number in (0, 1, 3, 7)]
    for _ in range(2):
        train_step(model, members, ROWS)
    losses = accumulate_gradients(model, members, ROWS)
    for member, loss in zip(members, losses, strict=True):
        twin = peft_twin(member.adapter, tiny_llama())
        expected = _mean_loss(twin, [ROWS[number] for micro in member.plan[member.step] for number in micro])
        expected.backward()
        assert loss == pytest.approx(expected.item(), rel=1e-5)
        modules = dict(twin.named_modules())
        for name, pair in member.adapter.weights.items():
            layer = modules[f"base_model.model.{name}"]
            assert relative(pair.a.grad, layer.lora_A["default"].weight.grad) <= 1e-5
            assert relative(pair.b.grad, layer.lora_B["default"].weight.grad) <= 1e-5


def _mean_loss(model: torch.nn.Module, rows: Sequence[Row]) -> torch.Tensor:
    total = torch.zeros(())
    for row in rows:
        logits = model(input_ids=torch.tensor([row.tokens]), use_cache=False).logits[0, row.target_start - 1 : -1]
        targets = torch.tensor(row.tokens[row.target_start :])
        total = total + torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    return total / sum(row.target_tokens for row in rows)


# When each member joins, and after how many of its own steps it leaves. Number 5's weights overflow at its seventh.
COMINGS = {0: (0, 50), 1: (0, 50), 2: (3, 20), 3: (5, 45), 4: (9, 41), 5: (2, 50), 6: (11, 30), 7: (20, 30)}


@pytest.mark.parametrize("padded", [False, True])
def test_whole_trainings_are_those_alone_while_others_join_leave_and_diverge(padded: bool) -> None:
    """Losses of every step, 50 at most, within 1e-4."""
    model = make_model(tiny_llama(layers=1), padded=padded)

    def member(number: int) -> TrainingMember:
        return make_member(model, ROWS, number, COMINGS[number][1])

    alone = {number: _losses_alone(model, member(number)) for number in set(COMINGS) - {5}}
    here: dict[int, TrainingMember] = {}
    together: dict[int, list[float]] = {number: [] for number in COMINGS}
    for step in range(50):
        here |= {number: member(number) for number, (joins, _) in COMINGS.items() if joins == step}
        if 5 in here and here[5].step == 6:
            list(here[5].adapter.weights.values())[-1].b.data.fill_(torch.inf)
        for number, result in zip(list(here), train_step(model, list(here.values()), ROWS, SPLIT), strict=True):
            together[number].append(result.loss)
            if result.diverged or here[number].step == here[number].total_steps:
                del here[number]
    assert not math.isfinite(together[5][-1])
    assert len(together[5]) == 7
    for number in alone:
        assert len(together[number]) == min(COMINGS[number][1], 50 - COMINGS[number][0])
        assert together[number] == pytest.approx(alone[number][: len(together[number])], rel=1e-4)


def _losses_alone(model: PackedModel, member: TrainingMember) -> list[float]:
    losses = []
    while member.step < member.total_steps:
        (result,) = train_step(model, [member], ROWS)
        losses.append(result.loss)
    return losses


def _leak_rows(monkeypatch: pytest.MonkeyPatch, members: Sequence[TrainingMember]) -> None:
    """Where one member's rows end, one row of the next is taken for its own."""
    original = training_module.pack_rows

    def leaking(*arguments: Any) -> Any:
        packed = original(*arguments)
        for place, (last, first) in enumerate(itertools.pairwise(packed)):
            if last.adapter is not first.adapter:
                edge = last.rows.stop + 1
                packed[place] = replace(last, rows=slice(last.rows.start, edge))
                packed[place + 1] = replace(first, rows=slice(edge, first.rows.stop))
                break
        return packed

    monkeypatch.setattr(training_module, "pack_rows", leaking)


def _mean_over_all(monkeypatch: pytest.MonkeyPatch, members: Sequence[TrainingMember]) -> None:
    """Each loss is the mean over the whole pack's target tokens."""
    run_pass, own_targets = training_module.run_pass, training_module.step_targets
    company: list[TrainingMember] = []

    def noting(model: PackedModel, members: Sequence[TrainingMember], *rest: Any) -> torch.Tensor:
        company[:] = members
        return run_pass(model, members, *rest)

    def of_all(member: TrainingMember, rows: Sequence[Row]) -> int:
        return sum(own_targets(one, rows) for one in company)

    monkeypatch.setattr(training_module, "run_pass", noting)
    monkeypatch.setattr(training_module, "step_targets", of_all)


def _share_clip(monkeypatch: pytest.MonkeyPatch, members: Sequence[TrainingMember]) -> None:
    """Gradients are clipped by the norm of the whole pack's."""
    original = member_module.total_norm

    def of_all(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
        return original([p.grad for one in members for p in one.adapter.parameters() if p.grad is not None])

    monkeypatch.setattr(member_module, "total_norm", of_all)


def _scale_by_first(monkeypatch: pytest.MonkeyPatch, members: Sequence[TrainingMember]) -> None:
    """Neighbours in one batched product are all scaled by the first one's alpha / r."""

    class WrongRun(pack.Run):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.scales = self.scales[:1].expand_as(self.scales)

    monkeypatch.setattr(pack, "Run", WrongRun)


@pytest.mark.parametrize("fault", [_leak_rows, _share_clip, _scale_by_first, _mean_over_all])
def test_a_planted_fault_is_caught(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members that share one batched product: the comparison passes, and fails with the fault."""
    model = make_model()
    members = [make_member(model, ROWS, number, steps=6, lora_dropout=0.0) for number in (1, 5)]
    for _ in range(2):
        take_and_compare(model, members, ROWS)
    fault(monkeypatch, members)
    with pytest.raises(AssertionError):
        take_and_compare(model, members, ROWS)


def test_members_are_all_different() -> None:
    """The table of members says what it claims."""
    configs, trainings = zip(*MEMBERS, strict=True)
    for key in ("seed", "learning_rate", "lora_alpha"):
        assert len({config[key] for config in configs}) == len(MEMBERS)
    for key in ("micro_batch_size", "gradient_accumulation_steps"):
        assert len({training[key] for training in trainings}) >= 3
