"""Parameter importance in studies where one thing matters and nothing else does."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from analysis.statistics.importance import ENOUGH_TRIALS, parameter_importance
from study.records.objectives import Objective
from study.records.record import TrialRecord

MakeRecord = Callable[..., TrialRecord]


def made_up(record: MakeRecord, count: int = 60) -> list[TrialRecord]:
    """Perplexity follows from the learning rate alone, memory from the rank alone."""
    generator = random.Random(0)
    records = []
    for index in range(count):
        rank, rate = generator.choice((2, 4, 8, 16, 32, 64)), 10 ** generator.uniform(-5, -3)
        precision = generator.choice(("bf16", "nf4"))
        measurements = {"perplexity": 10 + abs(1e3 * rate - 0.5), "peak_memory_bytes": 1e6 * rank}
        records.append(record(index, precision, rank, "q_v", rate, measurements=measurements))
    return records


def test_what_matters_comes_first(record: MakeRecord, objectives: tuple[Objective, ...]) -> None:
    found = parameter_importance(made_up(record), objectives)
    assert list(found) == ["perplexity", "peak_memory_bytes"]
    assert next(iter(found["perplexity"])) == "learning_rate"
    assert next(iter(found["peak_memory_bytes"])) == "rank"
    for shares in found.values():
        assert set(shares) == {"precision", "rank", "learning_rate"}  # alpha follows the rank, the rest is fixed
        assert sum(shares.values()) == pytest.approx(1.0)
        assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert found["perplexity"]["learning_rate"] > 0.6
    assert found["peak_memory_bytes"]["rank"] > 0.6


def test_it_is_the_same_every_time(record: MakeRecord, objectives: tuple[Objective, ...]) -> None:
    records = made_up(record, 40)
    assert parameter_importance(records, objectives) == parameter_importance(records, objectives)


def test_alpha_counts_where_it_is_chosen_on_its_own(record: MakeRecord, objectives: tuple[Objective, ...]) -> None:
    records = [
        replace(one, config=replace(one.config, lora_alpha=float(16 + 16 * (index % 2))))
        for index, one in enumerate(made_up(record, 40))
    ]
    assert "lora_alpha" in parameter_importance(records, objectives)["perplexity"]


def test_too_little_says_nothing(record: MakeRecord, objectives: tuple[Objective, ...]) -> None:
    assert parameter_importance([], objectives) == {}
    assert parameter_importance(made_up(record, ENOUGH_TRIALS - 1), objectives) == {}
    unfinished = [replace(one, status="stopped") for one in made_up(record, 40)]
    assert parameter_importance(unfinished, objectives) == {}
    same = [record(index) for index in range(ENOUGH_TRIALS)]
    assert parameter_importance(same, objectives) == {}


def test_an_objective_that_does_not_vary_is_left_out(record: MakeRecord, objectives: tuple[Objective, ...]) -> None:
    records = [replace(one, measurements={**one.measurements, "peak_memory_bytes": 1e9}) for one in made_up(record, 40)]
    assert list(parameter_importance(records, objectives)) == ["perplexity"]
