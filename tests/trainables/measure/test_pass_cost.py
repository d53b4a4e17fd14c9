"""The fixed cost of a pass: which passes are timed, and that nothing is left of them."""

from __future__ import annotations

import pytest
import torch

from tests.support.lora_cases import lora_config, new_member, random_rows
from tests.support.small_models import tiny_llama
from trainables.measure import pass_cost
from trainables.measure.pass_cost import measure_pass_cost
from trainables.packed.member import TrainingMember
from trainables.packed.packed_model import PackedModel

ROWS = random_rows(8)
LENGTHS = sorted(len(row.tokens) for row in ROWS)


@pytest.fixture(scope="module")
def model() -> PackedModel:
    return PackedModel(tiny_llama().train())


def maker(model: PackedModel, made: list[TrainingMember]):
    def make(config, plan):
        member = new_member(model, config, ROWS)
        made.append(TrainingMember(member.adapter, member.training, plan, half=False))
        return made[-1]

    return make


def test_a_pass_of_the_shortest_row_is_timed_against_two_of_many_of_the_longest(model, monkeypatch):
    """With seconds of 3 + 0.01 a token, the fixed cost is 300 tokens' worth; 5 more for a second run are 500."""
    timed = []

    def seconds(model, members, rows, one):
        plans = [members[part.member].plan[0][part.number] for part in one]
        timed.append([(part.member, part.rows, part.longest) for part in one])
        assert [[len(rows[number].tokens) for number in plan] for plan in plans] == [
            [part.longest] * part.rows for part in one
        ]
        return 3 + 0.01 * sum(part.rows * part.longest for part in one) + 5 * (len(one) - 1)

    monkeypatch.setattr(pass_cost, "_seconds", seconds)
    made: list[TrainingMember] = []
    found = measure_pass_cost(model, maker(model, made), lora_config(), ROWS, 1000)
    assert found is not None
    assert (found.fixed_tokens, found.run_tokens) == (300, 500)
    half, longest = 1000 // LENGTHS[-1] // 2, LENGTHS[-1]
    assert timed == [
        [(0, 1, LENGTHS[0])], [(0, half, longest)], [(0, 2 * half, longest)], [(0, half, longest), (1, half, longest)],
    ]  # fmt: skip
    ranks = [member.adapter.config.rank for member in made]
    assert ranks[0] != ranks[1]  # or they would share a run


def test_real_passes_are_timed_and_leave_no_gradient(model):
    made: list[TrainingMember] = []
    before = [parameter.clone() for parameter in model_parameters(model)]
    found = measure_pass_cost(model, maker(model, made), lora_config(), ROWS, 4000)
    assert found is not None
    assert found.seconds_per_token > 0
    assert all(parameter.grad is None for one in made for parameter in one.adapter.parameters())
    assert all(torch.equal(one, other) for one, other in zip(before, model_parameters(model), strict=True))


def test_a_short_pass_is_timed_again_and_a_hiccup_does_not_count(model, monkeypatch):
    """The first compiles, the second was held up by something else; a long one is timed once."""
    for answers, expected in (([9.0, 0.3, 0.05, 0.1], 0.05), ([9.0, 0.7], 0.7)):
        left = list(answers)
        monkeypatch.setattr(pass_cost, "_timed", lambda *pass_, left=left: left.pop(0))
        assert pass_cost._seconds(model, [], ROWS, []) == expected
        assert left == []


def test_without_room_for_a_larger_pass_there_is_no_answer(model):
    assert measure_pass_cost(model, maker(model, []), lora_config(), ROWS, 2 * LENGTHS[0]) is None


def model_parameters(model: PackedModel) -> list[torch.Tensor]:
    return [model.head, *(parameter for parameter in model.model.parameters())]
