"""What of two studies compares, and what changed over the configurations that both have."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.compare import changes, common_objectives, differing_settings, incomparable, joint_front, pairs
from analysis.load import Study
from study.records.objectives import Objective
from study.records.record import TrialRecord
from tests.support.study_directory import MakeRecord, study_settings

OBJECTIVES = (Objective("perplexity", "minimize", 30.0), Objective("peak_memory_bytes", "minimize", 1e12))


def study_of(*records: TrialRecord, name: str = "one", **settings: Any) -> Study:
    return Study(name, Path(name), OBJECTIVES, records, settings=study_settings(**settings))


def test_equal_hashes_compare(record: MakeRecord) -> None:
    failed = record(2, status="failed", comparable={"quality": "other", "cost": "other"})
    one, other = study_of(record(0), failed), study_of(record(1), name="other")
    assert [incomparable(one, other, kind) for kind in ("quality", "cost")] == [(), ()]


@pytest.mark.parametrize(
    ("changed", "settings", "kind", "reason"),
    [
        ({"base_model": {"path": "a/b", "sha256": "0" * 64}}, {}, "quality",
         "base model differs: SmolLM2-135M 5af571cbf074e6d21a03528d2330792e and a/b 000000000000…"),
        ({"dataset": {"fingerprint": "abc"}}, {}, "quality",
         "data (tokens, split and length) differs: 9c56cc51b374… and abc"),
        ({"device": {"name": "L4"}}, {}, "cost", "device differs: Tesla T4 and L4"),
        ({}, {"training": {"micro_batch_size": 8}}, "cost", "micro_batch_size differs: None and 8"),
        ({}, {"training": {"optimizer": "adamw_8bit"}}, "cost", "optimizer differs: adamw and adamw_8bit"),
        ({}, {}, "cost", "the engine or the masking has changed since one"),
    ],
)  # fmt: skip
def test_other_hashes_do_not_and_what_differs_is_named(
    changed: dict[str, Any], settings: dict[str, Any], kind: Any, reason: str, record: MakeRecord
) -> None:
    other = study_of(record(0, comparable={"quality": "x", "cost": "y"}, **changed), name="other", **settings)
    assert incomparable(study_of(record(0)), other, kind) == (reason,)


def test_all_that_differs_is_named_apart(record: MakeRecord) -> None:
    changed = record(
        0, comparable={"quality": "x", "cost": "y"}, dataset={"fingerprint": "a; b"}, device={"name": "L4"}
    )
    reasons = incomparable(study_of(record(0)), study_of(changed, name="other"), "cost")
    assert [reason.split(" differs")[0] for reason in reasons] == ["data (tokens, split and length)", "device"]


def test_studies_that_say_nothing_or_disagree_within_do_not_compare(record: MakeRecord) -> None:
    one = study_of(record(0))
    assert incomparable(one, study_of(name="other"), "cost") == ("other has no complete trial",)
    silent = study_of(record(0, comparable={}), name="other")
    assert incomparable(silent, one, "quality") == ("other does not say what its quality depends on",)
    mixed = study_of(record(0), record(1, comparable={"quality": "x", "cost": "2c3d"}), name="other")
    reason = "the complete trials of other do not compare among themselves"
    assert incomparable(one, mixed, "quality") == (reason,)


def test_costs_compare_where_equal_configurations_waited_alike_in_host_memory(record: MakeRecord) -> None:
    def streamed(index: int, **changes: Any) -> TrialRecord:
        device = {"name": "Tesla T4", "offload": {"layers": 32}}
        return record(index, device=device, comparable={"quality": "0a1b", "cost": "streamed"}, **changes)

    one = study_of(record(0), streamed(1, precision="bf16"))
    assert incomparable(one, replace(one, name="other"), "cost") == ()
    assert incomparable(one, study_of(record(0), name="other"), "cost") == ()
    reason = "what waited in host memory differs: nothing and 32 layers"
    for other in (study_of(streamed(0), name="other"), study_of(streamed(0), record(1, rank=9), name="other")):
        assert incomparable(one, other, "cost") == (reason,)
        assert incomparable(one, other, "quality") == ()
    disagreeing = study_of(record(0), streamed(1), replace(streamed(2), comparable={"quality": "0a1b", "cost": "x"}))
    assert incomparable(disagreeing, one, "cost") == ("the complete trials of one do not compare among themselves",)


def test_pairs_are_of_one_configuration_and_seed(record: MakeRecord) -> None:
    seed = record(3, rank=16)
    seed = replace(seed, config=replace(seed.config, seed=1))
    one = study_of(record(0), record(1, rank=16), record(2, rank=32))
    other = study_of(record(7, rank=32), seed, record(8), record(9, rank=16, status="failed"), name="other")
    found = [(a.trial_id, b.trial_id) for a, b in pairs(one, other)]
    assert found == [("t000", "t008"), ("t002", "t007")]


def test_changes_are_mean_ratios_and_accuracies_differences(record: MakeRecord) -> None:
    def of(perplexity: float | None, accuracy: float) -> TrialRecord:
        return record(0, measurements={"perplexity": perplexity, "accuracy": accuracy})

    both = [(of(10.0, 0.5), of(20.0, 0.6)), (of(10.0, 0.5), of(5.0, 0.8)), (of(None, 0.5), of(7.0, 0.5))]
    perplexity, accuracy = changes(both, ("perplexity", "accuracy", "energy_joules"))
    assert (perplexity.metric, perplexity.pairs, accuracy.pairs) == ("perplexity", 2, 3)
    assert perplexity.change.value == pytest.approx(0.0)  # doubled and halved
    assert (perplexity.change.low, perplexity.change.high) == (pytest.approx(-0.5), pytest.approx(1.0))
    assert accuracy.change.value == pytest.approx(0.4 / 3)
    assert all(math.isfinite(each.change.low) for each in (perplexity, accuracy))


def test_of_one_pair_there_is_no_interval(record: MakeRecord) -> None:
    one, other = (record(0, measurements={"perplexity": value}) for value in (10.0, 11.0))
    (change,) = changes([(one, other)], ("perplexity",))
    assert change.change.value == pytest.approx(0.1)
    assert math.isnan(change.change.low)
    assert math.isnan(change.change.high)


def test_a_joint_front_says_whose_each_member_is(record: MakeRecord) -> None:
    def of(index: int, perplexity: float, memory: int) -> TrialRecord:
        return record(index, measurements={"perplexity": perplexity, "peak_memory_bytes": memory})

    one, other = study_of(of(0, 10, 100), of(1, 8, 300)), study_of(of(0, 9, 100), of(1, 8.5, 400), name="other")
    members = [(study.name, each.trial_id) for study, each in joint_front((one, other), OBJECTIVES)]
    assert members == [("other", "t000"), ("one", "t001")]


def test_only_what_all_share_is_an_objective_of_all(record: MakeRecord) -> None:
    other = replace(study_of(), objectives=(OBJECTIVES[1], Objective("energy_joules", "minimize", 9.0)))
    assert common_objectives((study_of(), other)) == (OBJECTIVES[1],)


def test_settings_that_differ_are_named_key_by_key() -> None:
    other = study_of(name="other", seeds=[0, 1], hardware={"gpu": "l4", "gpus": None})
    differ = differing_settings(study_of(), other)
    assert differ == [("hardware.gpu", "t4", "l4"), ("seeds", [0], [0, 1])]
