"""Trainings whose moments wait in host memory are resident ones to the bit, whatever happens between updates."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from tests.support.lora_cases import random_rows
from tests.support.trainables.packed_cases import make_member, make_model
from tests.support.trainables.streams.late_stream import LateMark, LateStream
from trainables.engine.parking import parked, training_bytes
from trainables.packed.adapter_files import restore_training, training_state
from trainables.packed.member import StepResult, TrainingMember, Update
from trainables.packed.optimization import LossScaler
from trainables.packed.optimizers import staging as staging_module
from trainables.packed.optimizers.in_host_memory import InHostMemory
from trainables.packed.optimizers.staging import Lane, Staging
from trainables.packed.training import accumulate_gradients, train_step
from trainables.settings import Optimizer

ROWS = random_rows(20, longest=12)
MODEL = make_model()
SMALL = 1024  # bytes of a staging buffer: an adapter's moments come in many parts
NUMBERS = (0, 2, 3)


def pack(staging: Staging | None, optimizer: Optimizer = "adamw") -> list[TrainingMember]:
    """Members of unlike targets, ranks and micro-batches; 8 bits need parameters of 4096 numbers."""
    changes = {"rank": 128} if optimizer == "adamw_8bit" else {}
    return [make_member(MODEL, ROWS, number, 6, staging, optimizer, **changes) for number in NUMBERS]


def take(members: Sequence[TrainingMember], steps: int) -> list[list[StepResult]]:
    return [train_step(MODEL, members, ROWS) for _ in range(steps)]


def states(members: Sequence[TrainingMember]) -> list[bytes]:
    return [training_state(member, {}) for member in members]


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
@pytest.mark.parametrize("staged_bytes", [1, SMALL, 2**22])
def test_trainings_are_resident_ones_to_the_bit(optimizer: Optimizer, staged_bytes: int) -> None:
    """Three steps, the second of which one member's gradients overflow in: losses, weights, moments, counters."""
    resident, offloaded = pack(None, optimizer), pack(Staging(staged_bytes), optimizer)
    expected, results = take(resident, 1), take(offloaded, 1)
    for members in (resident, offloaded):
        members[0].scaler, members[1].scaler = LossScaler(2.0**10), LossScaler(1e38)
    expected, results = expected + take(resident, 2), results + take(offloaded, 2)
    assert [result.applied for result in results[1]] == [True, False, True]
    assert results == expected
    assert states(offloaded) == states(resident)


def test_an_adapters_moments_come_in_parts_that_fit() -> None:
    (member, *_) = pack(Staging(SMALL))
    optimizer = member.optimizer
    assert isinstance(optimizer, InHostMemory)
    sizes = [part.host.nbytes for part in optimizer._parts]
    assert len(sizes) > 2
    assert max(sizes) <= SMALL
    assert len({value.untyped_storage().data_ptr() for one in optimizer.state.values() for value in one.values()}) == 1
    assert 8 * member.adapter.trainable_parameters <= sum(sizes)


def test_a_buffer_that_is_filled_too_early_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one buffer for both, the next part overwrites the one that is to be updated: the comparison sees it."""
    monkeypatch.setattr(
        Lane, "_made", lambda lane, nbytes: [torch.empty(nbytes, dtype=torch.uint8, device=lane._device)] * 2
    )
    resident, offloaded = pack(None), pack(Staging(SMALL))
    take(resident, 2)
    take(offloaded, 2)
    assert states(offloaded) != states(resident)


@pytest.mark.parametrize("waits", [True, False])
def test_copies_may_be_as_late_as_a_card_makes_them(waits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are made when the update, or the host, waits for them; an update that does not wait shows."""
    monkeypatch.setattr(staging_module, "SideStream", LateStream)
    if not waits:
        monkeypatch.setattr(LateMark, "hold_device", lambda mark: None)
    resident, offloaded = pack(None), pack(Staging(SMALL))
    take(resident, 3)
    take(offloaded, 3)
    assert (states(offloaded) == states(resident)) == waits


def test_no_marks_of_copies_pile_up() -> None:
    """A training of days is read only at its checkpoints."""
    members = pack(Staging(SMALL))[:1]
    take(members, 3)
    optimizer = members[0].optimizer
    assert isinstance(optimizer, InHostMemory)
    assert len(optimizer._parts) > 2
    assert len(optimizer._written) == 1


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True), (True, True)])
def test_a_checkpoint_continues_on_either_side(optimizer: Optimizer, before: bool, after: bool) -> None:
    """An uninterrupted resident training, against a checkpoint in between of one side that the other one takes up."""
    straight, first, second = (
        pack(Staging(SMALL) if offloaded else None, optimizer)[1:2] for offloaded in (False, before, after)
    )
    expected = take(straight, 4)
    results = take(first, 2)
    restore_training(second[0], training_state(first[0], {}))
    take(first, 1)  # what happens after does not reach into the state
    assert results + take(second, 2) == expected
    assert states(second) == states(straight)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
def test_moments_stay_where_they_are_while_an_adapter_is_parked(optimizer: Optimizer) -> None:
    """Resident ones leave and come back, which changes nothing either."""
    resident, offloaded = pack(None, optimizer), pack(Staging(SMALL), optimizer)
    take(resident, 1)
    take(offloaded, 1)
    before = states(offloaded)
    kept = [value.data_ptr() for one in offloaded[0].optimizer.state.values() for value in one.values()]
    with parked([*resident, *offloaded]):
        assert states(offloaded) == states(resident) == before
    assert kept == [value.data_ptr() for one in offloaded[0].optimizer.state.values() for value in one.values()]
    assert training_bytes(offloaded[0]) == 4 * offloaded[0].adapter.trainable_parameters
    assert take(offloaded, 2) == take(resident, 2)
    assert states(offloaded) == states(resident)


def test_a_fresh_adapter_that_waits_has_no_moments_yet_and_takes_a_checkpoint_in() -> None:
    (trained,) = pack(None)[:1]
    take([trained], 2)
    like, staging = pack(None)[0], Staging(SMALL)
    elsewhere = [torch.device("meta")] * len(like.adapter.parameters())
    waiting = TrainingMember(like.adapter, like.training, like.plan, False, elsewhere, staging)
    assert waiting.away
    assert all(one["exp_avg"].untyped_storage().nbytes() == 4 for one in waiting.optimizer.state.values())
    waiting.homes = like.homes  # where it comes back to
    restore_training(waiting, training_state(trained, {}))
    assert states([waiting]) == states([trained])
    with parked([waiting]):
        pass
    waiting.optimizer.prepare(waiting.homes)
    waiting.away = False
    assert take([waiting], 1) == take([trained], 1)
    assert states([waiting]) == states([trained])


def test_what_was_fetched_for_an_update_that_never_came_is_not_used_later() -> None:
    """The second member's first part is on its way when it is put back to a checkpoint instead."""
    staging = Staging(2**22)
    (one, other), (twin,) = pack(staging)[:2], pack(None)[1:2]
    take([one, other], 1)
    state = training_state(other, {})
    take([other], 1)
    losses = accumulate_gradients(MODEL, [one], ROWS)
    update = Update(one, torch.tensor(losses[0]))
    update.queue(Update(with_gradients(other), torch.tensor(0.0)))
    update.result(ROWS)
    other.step = 0
    restore_training(other, state)
    restore_training(twin, state)
    assert take([other], 2) == take([twin], 2)
    assert states([other]) == states([twin])


def with_gradients(member: TrainingMember) -> TrainingMember:
    """The member with gradients of zeros, for an update that is only announced."""
    for parameter in member.adapter.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return member


def test_parameters_without_gradients_are_left_as_they_are() -> None:
    members = [pack(None)[2], pack(Staging(1))[2]]
    for member in members:
        (loss,) = accumulate_gradients(MODEL, [member], ROWS)
        member.adapter.parameters()[3].grad = None
        update = Update(member, torch.tensor(loss))
        update.queue()
        update.result(ROWS)
        assert float(member.optimizer.state[member.adapter.parameters()[3]]["step"]) == 0.0
    assert states(members[:1]) == states(members[1:])
