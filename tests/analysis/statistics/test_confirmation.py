"""What is worth confirming, and what confirming came to, against counts by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from analysis.statistics.confirmation import confirmation, near_front, on_test, same_configuration
from study.records.objectives import Objective
from study.records.record import TrialRecord
from tests.support.made_up_studies import make_config, make_record

OBJECTIVES = (Objective("perplexity", "minimize", 20.0), Objective("peak_memory_bytes", "minimize", 1000.0))


def record(name: str, rank: int, perplexity: float, memory: float, seed: int = 0, **changes: Any) -> TrialRecord:
    config = make_config(rank=rank, seed=seed)
    made = make_record(name, config, perplexity=perplexity, peak_memory_bytes=memory, **changes.pop("measured", {}))
    return replace(made, **changes)


def test_the_front_and_what_is_near_it_is_worth_confirming() -> None:
    records = [
        record("cheap", 1, 14.0, 100.0),
        record("good", 2, 10.0, 300.0),
        record("near", 4, 10.15, 310.0),  # would be on the front with 2 % less
        record("far", 8, 11.0, 320.0),
        replace(record("stopped", 16, 9.0, 90.0), status="stopped"),
        record("infinite", 32, math.inf, 90.0),
    ]
    assert {one.trial_id for one in near_front(records, OBJECTIVES)} == {"cheap", "good", "near"}
    assert near_front([], OBJECTIVES) == []


def test_documents_that_may_turn_the_order_make_a_rival() -> None:
    """Two rows each: one trial is better at one of them, by far."""
    tokens = [10, 10]
    one = record("one", 1, math.exp(1.0), 100.0, eval_rows={"nats": [5.0, 15.0], "tokens": tokens})
    other = record("other", 2, math.exp(1.2), 100.0, eval_rows={"nats": [15.0, 9.0], "tokens": tokens})
    assert {each.trial_id for each in near_front([one, other], OBJECTIVES)} == {"one", "other"}


def test_seeds_stand_together_on_the_test_split() -> None:
    records = [
        record(f"{rank}-{seed}", rank, 99.0, 100.0 * rank, seed, measured={"test_perplexity": 12.0 - rank + spread})
        for rank in (1, 2)
        for seed, spread in ((7, -0.5), (8, 0.5))
    ]
    found = confirmation(records, OBJECTIVES)
    assert found.split == "test"
    assert [one.trial_ids for one in found.members] == [("1-7", "1-8"), ("2-7", "2-8")]
    first = found.members[0]
    assert first.values["perplexity"] == (10.5, 11.5)
    assert first.spreads["perplexity"] == pytest.approx(math.sqrt(0.5))
    interval = first.intervals["perplexity"]
    assert (interval.low, interval.value, interval.high) == (10.5, 11.0, 11.5)  # both seeds may be drawn twice
    assert first.probability == 1.0  # nothing is cheaper
    assert found.members[1].probability == pytest.approx(1 - 1 / 16, abs=0.04)  # 10.5 twice is drawn beside 10.5 twice
    assert found.hypervolume.value == pytest.approx((200 - 100) * (20 - 11) + (1000 - 200) * (20 - 10))


def test_without_a_test_split_it_is_the_evaluation_split_s() -> None:
    found = confirmation([record("a", 1, 10.0, 100.0)], OBJECTIVES)
    assert (found.split, found.members[0].values["perplexity"]) == ("evaluation", (10.0,))
    assert found.members[0].spreads["perplexity"] is None
    assert confirmation([], OBJECTIVES).members == ()


def test_test_documents_take_the_place_of_evaluation_documents() -> None:
    rows = {"nats": [1.0], "tokens": [2]}
    tested = on_test(record("a", 1, 10.0, 1.0, measured={"test_perplexity": 8.0, "test_accuracy": 0.5}, test_rows=rows))
    assert (tested.measurements["perplexity"], tested.measurements["accuracy"], tested.eval_rows) == (8.0, 0.5, rows)


def test_epochs_are_timed_by_their_steps() -> None:
    timed = {"train_seconds": 6.0, "train_steps": 12}
    found = confirmation(
        [record("a", 1, 10.0, 100.0, measured=timed), record("b", 1, 10.0, 100.0, seed=1)], OBJECTIVES, 4
    )
    assert found.members[0].seconds_per_epoch == pytest.approx(2.0)  # of the seed that was timed
    assert confirmation([record("a", 1, 10.0, 100.0)], OBJECTIVES, 4).members[0].seconds_per_epoch is None


def test_seeds_of_a_configuration() -> None:
    config = make_config(rank=2, seed=1).to_dict()
    assert same_configuration(record("a", 2, 1.0, 1.0, seed=5), config)
    assert not same_configuration(record("a", 4, 1.0, 1.0), config)
