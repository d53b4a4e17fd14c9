"""How many tokens a pass may have: by what it was measured to cost, by memory, and after it ran out."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from search_spaces.trial_config import TARGET_SETS
from tests.support.lora_cases import lora_config, new_member, random_rows
from tests.support.plan_cases import LLAMA_3_8B
from tests.support.trainables.packed_cases import make_model
from trainables.engine.pass_budget import FEWEST_TOKENS, PassBudget, gradient_bytes
from trainables.limits import USUAL_PASS_TOKENS
from trainables.memory.prediction import DEFAULT_CONSTANTS, adapter_bytes, room, workspace_bytes
from trainables.memory.setting import AdapterLoad, MemorySetting
from trainables.memory.slack import allocated_within
from trainables.memory.weights import ModelPart, state_components
from trainables.packed.passes import PassCost, PassLimits

CPU = torch.device("cpu")


def test_passes_shrink_by_halves_down_to_the_smallest() -> None:
    budget = PassBudget("cpu")
    sizes = [budget.limits().max_tokens]
    while budget.shrink():
        sizes.append(budget.limits().max_tokens)
    assert all(2 * later == earlier for earlier, later in pairwise(sizes))
    assert sizes[-1] == FEWEST_TOKENS
    assert not budget.shrink()
    assert budget.limits().max_tokens == FEWEST_TOKENS


def test_what_a_pass_costs_is_measured_on_cards_alone_and_once() -> None:
    budget = PassBudget("cpu")
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
    budget = PassBudget("cuda")
    budget.learn_pass_cost(PassCost(300, 0, seconds_per_token))
    assert budget.limits() == PassLimits(most, 300)


def card(highest_bytes: int, monkeypatch: pytest.MonkeyPatch, **more: int) -> PassBudget:
    """A budget as a card has it on which nothing is allocated."""
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda card: 0)
    return PassBudget("cuda", {CPU: highest_bytes}, **more)


@pytest.mark.parametrize(("run_tokens", "padding_bytes"), [(0, 0), (7, 2**20)])
def test_room_for_padding_is_kept_free_where_runs_cost_something(
    run_tokens: int, padding_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 MiB are free, and a token needs 1 KiB."""
    budget = card(4 * 2**20, monkeypatch, padding_bytes=2**20)
    budget.learn(1024.0, 1)
    budget.learn_pass_cost(PassCost(300, run_tokens, 1e-6))
    assert budget.limits().max_tokens == (4 * 2**20 - padding_bytes) // 1024


def test_what_a_pass_needs_whatever_its_rows_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 bytes of workspace, 2 a token: of 512 tokens 1,124 bytes are seen. Its rows have half of them at least."""
    budget = card(2100, monkeypatch, workspace_bytes=100)
    budget.learn(1124.0, 512)
    assert budget.limits().max_tokens == 1000
    budget.learn(1000.0, 512)  # of all footprints the largest
    assert budget.limits().max_tokens == 1000
    unsure = card(2100, monkeypatch, workspace_bytes=100)
    unsure.learn(128.0, 16)
    assert unsure.limits().max_tokens == 2000 // 4


def test_gradients_that_are_still_to_come_have_their_room(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = make_model(), random_rows(4)
    members = [new_member(model, lora_config(rank=rank), rows) for rank in (2, 8)]
    weights = sum(one.adapter.trainable_parameters for one in members) * 4
    assert gradient_bytes(members) == {CPU: weights}
    budget = card(weights + 1000, monkeypatch)
    budget.learn(1.0, 1)
    assert budget.limits().max_tokens == min(weights + 1000, USUAL_PASS_TOKENS["cuda"])
    assert budget.limits(members).max_tokens == 1000
    for parameter in members[0].adapter.parameters():
        parameter.grad = torch.zeros_like(parameter)
    assert gradient_bytes(members) == {CPU: members[1].adapter.trainable_parameters * 4}


def test_the_plans_room_lets_the_pass_in_that_it_was_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Llama-3-8B in NF4 under 14.56 GiB: the pack of any 16 adapters that the plan lets in goes through in one pass.

    The card allows what `trainables.memory.slack` says, and what was measured is taken to be what is predicted.
    """
    setting, weights = MemorySetting("nf4", "fp16"), round(5.32 * 2**30)
    loads = [
        AdapterLoad(rank, TARGET_SETS[targets], False, 1, 512, 128)
        for rank in (8, 16)
        for targets in ("q_v", "all_linear")
    ]
    constants = DEFAULT_CONSTANTS["cuda"]
    highest = allocated_within(setting, round(14.56 * 2**30), weights, constants)
    states = [sum(state_components(LLAMA_3_8B, [load], ModelPart(32)).values()) for load in loads]
    rows = [adapter_bytes(LLAMA_3_8B, setting, load) - state for load, state in zip(loads, states, strict=True)]
    work = workspace_bytes(LLAMA_3_8B, setting)
    budget = card(highest - weights - constants.offset_bytes - 4 * sum(states), monkeypatch, workspace_bytes=work)
    for row in rows:
        budget.learn(row + work, 512)
    assert 4 * (sum(states) + sum(rows)) <= room(LLAMA_3_8B, setting, 15 * 2**30)
    assert budget.limits().max_tokens >= 16 * 512
