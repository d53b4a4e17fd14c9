"""Adapters that are moved out of the way come back bit for bit; passes shrink only so far."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tests.support.lora_cases import lora_config, new_member, random_rows
from tests.support.small_models import tiny_llama
from trainables.engine import pass_budget
from trainables.engine.parking import parked
from trainables.engine.pass_budget import FEWEST_TOKENS, SLACK_BYTES, PassBudget
from trainables.measure.training_cost import peak_memory
from trainables.packed.adapter_files import training_state
from trainables.packed.packed_model import PackedModel
from trainables.packed.passes import PassCost, PassLimits
from trainables.packed.training import TrainingMember, train_step

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


def tensors(member: TrainingMember) -> list[torch.Tensor]:
    return [*member.adapter.parameters(), *(s["exp_avg"] for s in member.optimizer.state.values())]


def test_parked_members_are_away_and_come_back_bit_for_bit(model: PackedModel, own_folder: Path) -> None:
    """And they train on as their twins do that were never away."""
    members, twins = [trained(model, seed) for seed in (1, 2)], [trained(model, seed) for seed in (1, 2)]
    before = [training_state(member, {}) for member in members]
    with parked(members):
        assert all(tensor.numel() == 0 for member in members for tensor in tensors(member))
        train_step(model, [trained(model, 3)], ROWS)  # another may train meanwhile
    assert [training_state(member, {}) for member in members] == before
    assert list(own_folder.iterdir()) == []
    assert train_step(model, members, ROWS) == train_step(model, twins, ROWS)
    assert [training_state(one, {}) for one in members] == [training_state(one, {}) for one in twins]


def test_a_fresh_member_comes_back_too_and_its_moments_are_not_written(model: PackedModel, own_folder: Path) -> None:
    member, twin = (new_member(model, lora_config(seed=1, rank=64), ROWS) for _ in range(2))
    before = training_state(member, {})
    with parked([member]):
        assert all(tensor.numel() == 0 for tensor in tensors(member))
        (file,) = own_folder.iterdir()
        assert file.stat().st_size < 1.5 * 4 * twin.adapter.trainable_parameters
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


def test_they_come_back_when_the_next_one_cannot_be_moved(
    model: PackedModel, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [trained(model, 1), trained(model, 2)]
    before = [training_state(member, {}) for member in members]
    save, saved = torch.save, []

    def full_disk(content: object, path: Path) -> None:
        if saved:
            raise OSError(28, "No space left on device")
        saved.append(path)
        save(content, path)

    monkeypatch.setattr(pass_budget.torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"), parked(members):
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


def test_passes_shrink_by_halves_down_to_the_smallest() -> None:
    budget = PassBudget([CPU], None)
    sizes = [budget.limits().max_tokens]
    while budget.shrink():
        sizes.append(budget.limits().max_tokens)
    assert all(2 * later == earlier for earlier, later in pairwise(sizes))
    assert sizes[-1] == FEWEST_TOKENS
    assert not budget.shrink()
    assert budget.limits().max_tokens == FEWEST_TOKENS


def test_what_a_pass_costs_is_measured_on_cards_alone_and_once() -> None:
    budget = PassBudget([CPU], None)
    assert not budget.wants_pass_cost
    usual = budget.limits()
    budget.learn_pass_cost(None)
    assert budget.limits() == usual
    budget.learn_pass_cost(PassCost(5000, 0, 1e-6))
    assert budget.limits() == PassLimits(usual.max_tokens, 5000)


@pytest.mark.parametrize(("seconds_per_token", "most"), [(1e-6, 65536), (1e-3, 10000), (0.1, 8192)])
def test_a_card_takes_more_than_the_usual_tokens_where_they_are_done_in_time(
    seconds_per_token: float, most: int
) -> None:
    budget = PassBudget([torch.device("cuda")], None) if torch.cuda.is_available() else _card_without_memory()
    budget.learn_pass_cost(PassCost(300, 0, seconds_per_token))
    assert budget.limits() == PassLimits(most, 300)


@pytest.mark.parametrize(("run_tokens", "kept_free"), [(0, SLACK_BYTES), (7, SLACK_BYTES + 2**20)])
def test_room_for_padding_is_kept_free_where_runs_cost_something(
    run_tokens: int, kept_free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 MiB are free beside the slack, and a token needs 1 KiB."""
    budget = _card_without_memory()
    budget._padding_bytes = 2**20
    budget._cards = {CPU: SLACK_BYTES + 4 * 2**20}
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda card: 0)
    budget.learn(1024.0)
    budget.learn_pass_cost(PassCost(300, run_tokens, 1e-6))
    assert budget.limits().max_tokens == (SLACK_BYTES + 4 * 2**20 - kept_free) // 1024


def _card_without_memory() -> PassBudget:
    """A budget as a card has it, where there is none to ask for its memory."""
    budget = PassBudget([CPU], None)
    budget._kind, budget._most = "cuda", pass_budget.USUAL_TOKENS["cuda"]
    return budget
