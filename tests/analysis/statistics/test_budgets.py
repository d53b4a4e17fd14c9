"""Budget cards against their definition; what fits exactly, ties, tolerances, and nothing to choose from."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.statistics.budgets import BUDGETS, T4, best_within, least_memory, memory_metric, quality_objective
from study.records.objectives import METRICS, Objective
from study.records.record import TrialRecord
from tests.support.study_directory import GIB, MakeRecord, made_up_records

TEMPLATE = made_up_records()[0]
BOTH = (Objective("perplexity", "minimize", 30.0), Objective("peak_memory_bytes", "minimize", 8.0))


def _trial(index: int, perplexity: float | None, memory: float | None, **changes: Any) -> TrialRecord:
    measurements = {"perplexity": perplexity, "peak_memory_bytes": memory, **changes.pop("measurements", {})}
    status = changes.pop("status", "complete")
    return TrialRecord("s", f"t{index}", status, TEMPLATE.config, measurements=measurements)


def test_the_usual_budgets() -> None:
    assert [round(size / GIB, 2) for size in BUDGETS] == [8, 12, 14.56, 24]
    assert T4 in BUDGETS


def test_the_best_that_fits_is_taken_with_its_price() -> None:
    records = [_trial(0, 20.0, 4), _trial(1, 10.0, 8), _trial(2, 8.0, 9)]
    card = best_within(records, BOTH, 8)
    assert card is not None
    assert (card.record.trial_id, card.quality, card.memory_bytes, card.spare_bytes) == ("t1", 10.0, 8, 0)
    assert card.loss == pytest.approx(0.25)
    assert not card.is_near_best


def test_within_the_tolerance_the_least_memory_wins_then_quality_then_order() -> None:
    records = [_trial(0, 10.0, 8), _trial(1, 10.15, 5), _trial(2, 10.1, 5), _trial(3, 10.1, 5), _trial(4, 10.3, 4)]
    card = best_within(records, BOTH, 8, tolerance=0.02)
    assert card is not None
    assert card.record.trial_id == "t2"
    assert card.loss == pytest.approx(0.01)
    assert card.is_near_best
    exact = best_within(records, BOTH, 8, tolerance=0.0)
    assert exact is not None
    assert exact.record.trial_id == "t0"
    loose = best_within(records, BOTH, 8, tolerance=0.5)
    assert loose is not None
    assert loose.record.trial_id == "t4"


def test_accuracy_is_better_when_higher() -> None:
    objectives = (Objective("accuracy", "maximize", 0.3), BOTH[1])
    records = [_trial(i, 9.0, 4 - i, measurements={"accuracy": value}) for i, value in enumerate((0.6, 0.595, 0.5))]
    card = best_within(records, objectives, 8, tolerance=0.02)
    assert card is not None
    assert (card.record.trial_id, card.quality) == ("t1", 0.595)
    assert card.loss == pytest.approx(0.005 / 0.6)


@pytest.mark.parametrize(
    "records",
    [
        [],
        [_trial(0, 5.0, 9)],
        [_trial(0, None, 4), _trial(1, 5.0, None), _trial(2, math.nan, 4), _trial(3, 5.0, math.inf)],
        [_trial(i, 5.0, 4, status=s) for i, s in enumerate(("stopped", "infeasible", "diverged", "failed"))],
    ],
)
def test_nothing_fits(records: list[TrialRecord]) -> None:
    assert best_within(records, BOTH, 8) is None


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_budget_and_tolerance_are_checked(value: float) -> None:
    with pytest.raises(ValueError, match="budget_bytes must be a finite number of at least 0"):
        best_within([], BOTH, value)
    with pytest.raises(ValueError, match="tolerance must be a finite number of at least 0"):
        best_within([], BOTH, 8, tolerance=value)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 12)), max_size=8),
    st.integers(0, 13),
    st.sampled_from([0.0, 0.02, 0.1, 1.0]),
)
def test_a_card_is_what_its_definition_says(pairs: list[tuple[int, int]], size: int, tolerance: float) -> None:
    card = best_within([_trial(i, p, m) for i, (p, m) in enumerate(pairs)], BOTH, size, tolerance)
    fitting = [pair for pair in pairs if pair[1] <= size]
    assert (card is None) == (not fitting)
    if card is not None:
        best = min(p for p, _ in fitting)
        near = [(m, p) for p, m in fitting if p == best or (p - best) / best <= tolerance]
        assert (card.memory_bytes, card.quality) == min(near)
        assert card.record.trial_id == f"t{pairs.index((int(card.quality), int(card.memory_bytes)))}"
        of_all = min(p for p, _ in pairs)
        assert card.loss == pytest.approx((card.quality - of_all) / of_all)


def test_a_larger_budget_never_costs_quality_beyond_the_tolerance(objectives: tuple[Objective, ...]) -> None:
    records = made_up_records()
    cards = [best_within(records, objectives, size * GIB / 100) for size in range(60, 140)]
    losses = [card.loss for card in cards if card is not None]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == 0.0


def test_the_least_memory_is_the_smallest_budget_that_anything_fits(record: MakeRecord) -> None:
    records = [record(0), record(1, precision="bf16"), record(2, status="stopped", measurements={"perplexity": 1.0})]
    least = least_memory(records, BOTH)
    assert least is not None
    assert best_within(records, BOTH, least) is not None
    assert best_within(records, BOTH, least - 1) is None
    assert least_memory([], BOTH) is None


@pytest.mark.parametrize(
    ("metrics", "memory", "quality"),
    [
        (("perplexity", "peak_memory_bytes"), "peak_memory_bytes", "perplexity"),
        (("seconds_per_epoch", "accuracy"), "peak_memory_bytes", "accuracy"),
        (("peak_device_bytes", "peak_memory_bytes"), "peak_device_bytes", "perplexity"),
        (("train_tokens_per_second", "energy_joules"), "peak_memory_bytes", "perplexity"),
    ],
)
def test_what_a_budget_bounds_and_is_judged_by(metrics: tuple[str, ...], memory: str, quality: str) -> None:
    objectives = [Objective(metric, METRICS[metric].direction, 1.0) for metric in metrics]
    assert memory_metric(objectives) == memory
    assert quality_objective(objectives).metric == quality
