"""How many tokens a pass may have: by what it was measured to cost, by memory, and after it ran out."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from trainables.engine.pass_budget import FEWEST_TOKENS, SLACK_BYTES, PassBudget
from trainables.limits import USUAL_PASS_TOKENS
from trainables.packed.passes import PassCost, PassLimits

CPU = torch.device("cpu")


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
    budget._kind, budget._most = "cuda", USUAL_PASS_TOKENS["cuda"]
    return budget
