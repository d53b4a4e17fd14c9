"""What befalls one member of a step leaves all others as they were; tolerances are stated by each test."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.support.lora_cases import random_rows
from tests.support.trainables.packed_cases import (
    SPLIT,
    make_member,
    make_model,
    put_back,
    state_of,
    take_and_compare,
)
from trainables.packed import member as member_module
from trainables.packed import packed_model as packed_model_module
from trainables.packed.member import apply_gradients
from trainables.packed.optimization import LossScaler
from trainables.packed.training import accumulate_gradients, train_step

ROWS = random_rows(30, longest=16)


def test_a_loss_that_is_not_finite_touches_nobody_else() -> None:
    model = make_model()
    members = [make_member(model, ROWS, number, steps=6) for number in (0, 2, 6)]
    train_step(model, members, ROWS)
    before = state_of(members[0])
    (alone,) = train_step(model, [members[0]], ROWS)
    weights_alone = state_of(members[0])
    put_back(members[0], before, step=1)
    list(members[1].adapter.weights.values())[-1].b.data[0, 0] = torch.nan
    poisoned = state_of(members[1])
    results = train_step(model, members, ROWS)
    assert [result.diverged for result in results] == [False, True, False]
    assert results[0].loss == pytest.approx(alone.loss, rel=1e-6)
    for ours, expected in zip(state_of(members[0]), weights_alone, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-7)
    assert all(torch.equal(a, b) or a.isnan().any() for a, b in zip(state_of(members[1]), poisoned, strict=True))
    assert members[1].step == 1


@pytest.mark.parametrize(("module", "where"), [(packed_model_module, "target_nats"), (member_module, "total_norm")])
def test_out_of_memory_anywhere_in_a_step_changes_nobody(
    module: Any, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    members = [make_member(model, ROWS, number, steps=6) for number in range(4)]
    train_step(model, members, ROWS)
    before = [state_of(member) for member in members]
    original, calls = getattr(module, where), []

    def scarce(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, where, scarce)
        with pytest.raises(torch.OutOfMemoryError):
            train_step(model, members, ROWS, SPLIT)
    for member, state in zip(members, before, strict=True):
        assert member.step == 1
        assert all(parameter.grad is None for parameter in member.adapter.parameters())
        assert all(torch.equal(a, b) for a, b in zip(state_of(member), state, strict=True))
    take_and_compare(model, members, ROWS)


def test_each_member_has_a_loss_scaler_of_its_own() -> None:
    """Scales differ in a pack and change nothing; one that overflows skips its step alone, and is halved."""
    model = make_model()
    plain, scaled = ([make_member(model, ROWS, number, steps=6) for number in (0, 3, 6)] for _ in range(2))
    for member, scale in zip(scaled, (2.0**10, 1e38, 2.0**3), strict=True):
        member.scaler = LossScaler(scale)
    before = state_of(scaled[1])
    expected, results = (train_step(model, members, ROWS) for members in (plain, scaled))
    assert [result.applied for result in results] == [True, False, True]
    assert scaled[1].scaler.scale == 1e38 / 2
    assert not results[1].diverged
    assert scaled[1].step == 1
    assert all(torch.equal(a, b) for a, b in zip(state_of(scaled[1]), before, strict=True))
    for place in (0, 2):
        assert results[place].gradient_norm == pytest.approx(expected[place].gradient_norm, rel=1e-5)
        for ours, theirs in zip(state_of(scaled[place]), state_of(plain[place]), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


def test_an_update_is_torchs_clip_and_adamw() -> None:
    """Against clip_grad_norm_ and an AdamW of torch's own over three steps: 1e-6."""
    model = make_model()
    member = make_member(model, ROWS, 2, steps=5)
    twins = [parameter.detach().clone().requires_grad_() for parameter in member.adapter.parameters()]
    optimizer = torch.optim.AdamW(twins, lr=1.0, weight_decay=member.training.weight_decay)
    for _ in range(3):
        (loss,) = accumulate_gradients(model, [member], ROWS)
        for twin, parameter in zip(twins, member.adapter.parameters(), strict=True):
            twin.grad = parameter.grad.clone()
        norm = torch.nn.utils.clip_grad_norm_(twins, member.training.max_grad_norm)
        assert norm > member.training.max_grad_norm  # it is clipped
        optimizer.param_groups[0]["lr"] = member.learning_rate
        optimizer.step()
        result = apply_gradients(member, ROWS, loss)
        assert result.gradient_norm == pytest.approx(float(norm), rel=1e-6)
        for twin, parameter in zip(twins, member.adapter.parameters(), strict=True):
            torch.testing.assert_close(parameter, twin, rtol=1e-6, atol=1e-7)
