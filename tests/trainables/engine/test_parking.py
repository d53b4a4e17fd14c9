"""Adapters that are moved out of the way can be read there, and come back bit for bit, whatever happens meanwhile."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from tests.support.lora_cases import lora_config, new_member, random_rows
from tests.support.small_models import tiny_llama
from trainables.engine import parking
from trainables.engine.parking import ParkingError, parked
from trainables.measure.peak_memory import peak_memory
from trainables.packed.adapter_files import training_state
from trainables.packed.member import TrainingMember
from trainables.packed.packed_model import PackedModel
from trainables.packed.training import train_step

CPU = torch.device("cpu")
ROWS = random_rows(8)


@pytest.fixture(scope="module")
def model() -> PackedModel:
    return PackedModel(tiny_llama().train())


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def trained(model: PackedModel, seed: int, rank: int = 4) -> TrainingMember:
    member = new_member(model, lora_config(seed=seed, rank=rank), ROWS)
    train_step(model, [member], ROWS)
    return member


def test_parked_members_are_away_and_come_back_bit_for_bit(model: PackedModel, own_folder: Path) -> None:
    """And they train on as their twins do that were never away."""
    members, twins = [trained(model, seed) for seed in (1, 2)], [trained(model, seed) for seed in (1, 2)]
    before = [training_state(member, {}) for member in members]
    with parked(members):
        assert all(member.away for member in members)
        assert [training_state(member, {}) for member in members] == before  # a checkpoint is whole
        assert list(own_folder.iterdir()) == []  # what is killed now leaves nothing behind
        train_step(model, [trained(model, 3)], ROWS)  # another may train meanwhile
    assert [training_state(member, {}) for member in members] == before
    assert list(own_folder.iterdir()) == []
    assert train_step(model, members, ROWS) == train_step(model, twins, ROWS)
    assert [training_state(one, {}) for one in members] == [training_state(one, {}) for one in twins]


def test_a_fresh_member_comes_back_too_and_of_it_only_a_is_written(
    model: PackedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    member, twin = (new_member(model, lora_config(seed=1, rank=64), ROWS) for _ in range(2))
    before = training_state(member, {})
    mapped, written = parking._mapped, []
    monkeypatch.setattr(parking, "_mapped", lambda tensors: written.extend(tensors) or mapped(tensors))
    with parked([member]):
        halves = [pair.a for pair in twin.adapter.weights.values()]
        assert all(torch.equal(one, half) for one, half in zip(written, halves, strict=True))
        assert training_state(member, {}) == before
    assert training_state(member, {}) == before
    assert train_step(model, [member], ROWS) == train_step(model, [twin], ROWS)
    assert training_state(member, {}) == training_state(twin, {})


def test_they_come_back_when_the_work_meanwhile_fails(model: PackedModel, own_folder: Path) -> None:
    member = trained(model, 1)
    before = training_state(member, {})
    with pytest.raises(MemoryError, match="meanwhile"), parked([member]):
        raise MemoryError("meanwhile")
    assert training_state(member, {}) == before
    assert list(own_folder.iterdir()) == []


def test_a_file_that_cannot_be_written_leaves_the_member_where_it_was_and_no_file(
    model: PackedModel, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = trained(model, 1)
    before = training_state(member, {})

    def full_disk(path: str, **options: object) -> torch.Tensor:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parking.torch, "from_file", full_disk)
    with pytest.raises(ParkingError, match="No space left"):
        parking.park(member)
    assert not member.away
    assert training_state(member, {}) == before
    assert list(own_folder.iterdir()) == []


@pytest.mark.parametrize("move", [parking._mapped, parking._in_host_memory])
def test_a_block_holds_tensors_of_any_shape_and_type(move: Callable[[list[torch.Tensor]], list[torch.Tensor]]) -> None:
    tensors = [torch.rand(3, 5), torch.tensor(2.0), torch.arange(7), torch.rand(4, 6).T, torch.rand(1, 1).half()]
    moved = move(tensors)
    assert all(one.dtype == there.dtype and torch.equal(one, there) for one, there in zip(tensors, moved, strict=True))
    assert len({one.untyped_storage().data_ptr() for one in moved}) == 1


def test_who_is_added_within_the_block_comes_back_too(model: PackedModel) -> None:
    first, later = trained(model, 1), trained(model, 2)
    before = training_state(later, {})
    with parked([first]) as aside:
        aside.add([first, later])
        assert later.away
    assert not first.away
    assert not later.away
    assert training_state(later, {}) == before


def test_they_come_back_when_the_next_one_cannot_be_moved(
    model: PackedModel, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [trained(model, 1), trained(model, 2)]
    before = [training_state(member, {}) for member in members]
    mapped, written = parking._mapped, []

    def full_disk(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        if written:
            raise OSError(28, "No space left on device")
        written.append(len(tensors))
        return mapped(tensors)

    monkeypatch.setattr(parking, "_mapped", full_disk)
    with pytest.raises(ParkingError, match=r"off the device: OSError: .*No space left"), parked(members):
        pytest.fail("the second was not moved")
    assert [training_state(member, {}) for member in members] == before
    assert list(own_folder.iterdir()) == []


def test_what_is_parked_is_not_measured(model: PackedModel) -> None:
    """A rank-1024 adapter's weights and two moments, 12 bytes a parameter, leave the process' peak: to 4 MiB."""
    member = trained(model, 1, rank=1024)
    with peak_memory([CPU]) as there:
        pass
    with parked([member]), peak_memory([CPU]) as away:
        pass
    saved = there.bytes[0] - away.bytes[0]
    assert saved == pytest.approx(12 * member.adapter.trainable_parameters, abs=4 * 2**20)
    assert saved > 4 * 2**20
