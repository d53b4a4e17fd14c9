"""Effects in studies whose truth is known: what pairs, what does not, and what the interval says."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analysis.statistics.effects import Effect, effects, level_of, matched_pairs, standard_effects
from study.records.record import TrialRecord

MakeRecord = Callable[..., TrialRecord]


def reconfigured(one: TrialRecord, **changes: Any) -> TrialRecord:
    """The record with parts of its configuration replaced."""
    return replace(one, config=replace(one.config, **changes))


def measured(one: TrialRecord, **values: Any) -> TrialRecord:
    """The record with measurements replaced."""
    return replace(one, measurements={**one.measurements, **values})


def effect(records: list[TrialRecord], factor: str, before: Any, after: Any, metric: str) -> Effect:
    """The effect on one metric."""
    (found,) = effects(records, factor, before, after, [metric])
    return found


def grid(record: MakeRecord, noise: float = 0.0, seeds: int = 1) -> list[TrialRecord]:
    """2 x 2 x 2 configurations whose perplexity and memory are products of known factors."""
    generator = np.random.default_rng(0)
    records = []
    for precision, p in (("fp16", 1.0), ("nf4", 1.05)):
        for rank, r in ((8, 1.0), (64, 0.9)):
            for modules, m in (("q_v", 1.0), ("all_linear", 0.8)):
                for seed in range(seeds):
                    one = record(len(records), "bf16", rank, modules)
                    one = reconfigured(one, precision=precision, seed=seed)
                    perplexity = 20 * p * r * m * math.exp(noise * generator.normal())
                    memory = {"fp16": 16.0, "nf4": 4.0}[precision] * (1.5 if rank == 64 else 1.0)
                    values = {"perplexity": perplexity, "peak_memory_bytes": memory, "seconds_per_epoch": None}
                    records.append(measured(one, **values, accuracy=0.5 + (0.1 if precision == "nf4" else 0.0)))
    return records


def test_layers_are_a_factor_of_their_own(record: MakeRecord) -> None:
    """Half the layers are compared with all, at equal modules; modules only at equal layers."""
    records = []
    for modules, m in (("q_v", 1.0), ("all_linear", 0.8)):
        for layers, part in ((None, 1.0), ("last_half", 1.25), ((0, 3), 1.5)):
            one = reconfigured(record(len(records), "bf16", 8, modules), layers=layers)
            records.append(measured(one, perplexity=20 * m * part))
    for after, change in (("last_half", 0.25), ("0-3", 0.5)):
        found = effect(records, "layers", "all", after, "perplexity")
        assert found.pairs == 2
        assert found.change is not None
        assert found.change.value == pytest.approx(change)
    modules_alone = effect(records, "target_modules", "q_v", "all_linear", "perplexity")
    assert (modules_alone.pairs, round(modules_alone.change.value, 9)) == (3, -0.2)  # type: ignore[union-attr]
    asked = {(one.factor, one.before, one.after) for one in standard_effects(records)}
    assert {("layers", "all", "last_half"), ("layers", "all", "0-3")} < asked


def test_patterns_whose_short_names_are_alike_do_not_pair(record: MakeRecord) -> None:
    long = [rf"re:layers\.(2[0-9]|{middle}0)\.self_attn\.q_proj" for middle in (3, 4)]
    one, other = (reconfigured(record(n, "bf16", 8 * (n + 1), "q_v"), target_modules=(long[n],)) for n in range(2))
    assert level_of(one, "target_modules") == level_of(other, "target_modules")
    assert matched_pairs([one, other], "rank", 8, 16) == []


def test_a_product_of_factors_is_found_exactly(record: MakeRecord) -> None:
    records = grid(record)
    asked = [
        ("rank", 8, 64, "perplexity", -0.1),
        ("target_modules", "q_v", "all_linear", "perplexity", -0.2),
        ("precision", "fp16", "nf4", "perplexity", 0.05),
        ("precision", "fp16", "nf4", "peak_memory_bytes", -0.75),
        ("rank", 8, 64, "peak_memory_bytes", 0.5),
        ("precision", "fp16", "nf4", "accuracy", 0.1),
    ]
    for factor, before, after, metric, truth in asked:
        found = effect(records, factor, before, after, metric)
        assert found.pairs == 4
        assert found.change is not None
        for number in (found.change.low, found.change.value, found.change.high):
            assert number == pytest.approx(truth, abs=1e-12)
        assert found.sure


def test_an_effect_and_its_reverse_undo_each_other(record: MakeRecord) -> None:
    records = grid(record, noise=0.1, seeds=3)
    there, back = effect(records, "rank", 8, 64, "perplexity"), effect(records, "rank", 64, 8, "perplexity")
    assert there.change is not None
    assert back.change is not None
    assert (1 + there.change.value) * (1 + back.change.value) == pytest.approx(1.0)


def test_noise_alone_is_not_sure_and_the_interval_is_that_of_the_mean(record: MakeRecord) -> None:
    records = [measured(one, accuracy=value) for one, value in zip(grid(record), (0.1, 0.2, 0.3, 0.4) * 2, strict=True)]
    found = effect(records, "precision", "fp16", "nf4", "accuracy")
    assert found.change is not None
    assert not found.sure
    assert (found.change.low, found.change.value, found.change.high) == pytest.approx((0.0, 0.0, 0.0))
    values = (0.0, 0.0, 0.0, 0.0, 0.5, -0.5, 0.5, -0.5)  # differences with mean 0
    noisy = [measured(one, accuracy=value) for one, value in zip(grid(record), values, strict=True)]
    spread = effect(noisy, "precision", "fp16", "nf4", "accuracy")
    assert spread.change is not None
    assert (spread.change.low, spread.change.high) == pytest.approx((-0.5, 0.5))
    assert not spread.sure


def test_only_trials_equal_in_all_else_pair(record: MakeRecord) -> None:
    base = record(0, rank=8)
    other = record(1, rank=64)
    assert matched_pairs([base, other], "rank", 8, 64) == [(base, other)]
    differing = [
        reconfigured(other, learning_rate=1e-4),
        reconfigured(other, seed=1),
        reconfigured(other, lora_dropout=0.0),
        reconfigured(other, precision="bf16"),
        reconfigured(other, target_modules=("q_proj",)),
        reconfigured(other, lora_alpha=77.0),
        replace(other, comparable={"quality": "another"}),
        replace(other, status="stopped"),
    ]
    for one in differing:
        assert matched_pairs([base, one], "rank", 8, 64) == []


def test_rank_pairs_at_equal_alpha_or_equal_scaling_and_nobody_twice(record: MakeRecord) -> None:
    low = record(0, rank=8)  # alpha 16
    scaled, fixed = record(1, rank=64), reconfigured(record(2, rank=64), lora_alpha=16.0)
    assert matched_pairs([low, scaled], "rank", 8, 64) == [(low, scaled)]
    assert matched_pairs([low, fixed], "rank", 8, 64) == [(low, fixed)]
    assert matched_pairs([low, scaled, fixed], "rank", 8, 64) == [(low, fixed)]
    again = replace(low, trial_id="again")
    assert matched_pairs([low, again, scaled, fixed], "rank", 8, 64) == [(low, fixed), (again, scaled)]


def test_target_modules_pair_whatever_their_order(record: MakeRecord) -> None:
    one, other = record(0, modules="q_v"), record(1, modules="all_linear")
    shuffled = reconfigured(other, target_modules=tuple(reversed(other.config.target_modules)))
    assert level_of(shuffled, "target_modules") == "all_linear"
    assert matched_pairs([one, shuffled], "target_modules", "q_v", "all_linear") == [(one, shuffled)]


def test_metrics_of_different_trials_have_pairs_of_their_own(record: MakeRecord) -> None:
    records = grid(record)
    records[0] = measured(records[0], accuracy=None)
    together = effects(records, "rank", 8, 64, ["perplexity", "accuracy", "peak_memory_bytes"])
    assert together == [effect(records, "rank", 8, 64, one.metric) for one in together]
    assert [one.pairs for one in together] == [4, 3, 4]


def test_no_pairs_is_no_effect(record: MakeRecord) -> None:
    found = effect([record(0, rank=8)], "rank", 8, 64, "perplexity")
    assert (found.pairs, found.change, found.sure) == (0, None, False)
    assert standard_effects([]) == []


def test_missing_and_infinite_measurements_do_not_pair(record: MakeRecord) -> None:
    low, high = record(0, rank=8), record(1, rank=64)
    for value in (None, math.inf, math.nan, 0.0):
        found = effect([low, measured(high, perplexity=value)], "rank", 8, 64, "perplexity")
        assert found.pairs == 0


def test_one_pair_without_documents_has_no_bounds(record: MakeRecord) -> None:
    records = [measured(record(0, rank=8), perplexity=10.0), measured(record(1, rank=64), perplexity=9.0)]
    found = effect(records, "rank", 8, 64, "perplexity")
    assert found.change is not None
    assert found.change.value == pytest.approx(-0.1)
    assert math.isnan(found.change.low)
    assert math.isnan(found.change.high)
    assert not found.sure


def test_one_pair_with_documents_has_those_of_its_documents(record: MakeRecord) -> None:
    def evaluated(index: int, rank: int, nats: list[float]) -> TrialRecord:
        one = measured(record(index, rank=rank), perplexity=math.exp(sum(nats) / 2))
        return replace(one, eval_rows={"nats": nats, "tokens": [1, 1]})

    pair = [evaluated(0, 8, [2.0, 5.0]), evaluated(1, 64, [1.9, 4.7])]
    found = effect(pair, "rank", 8, 64, "perplexity")
    assert found.change is not None
    assert found.change.value == pytest.approx(math.expm1(-0.2))
    assert (found.change.low, found.change.high) == pytest.approx((math.expm1(-0.3), math.expm1(-0.1)))
    assert found.sure


def test_the_papers_questions_are_asked_of_what_was_tried(record: MakeRecord) -> None:
    found = standard_effects(grid(record), resamples=50)
    assert {(one.factor, one.before, one.after) for one in found} == {
        ("rank", 8, 64),
        ("target_modules", "q_v", "all_linear"),
        ("precision", "fp16", "nf4"),
    }
    assert {one.metric for one in found} == {"perplexity", "test_perplexity", "accuracy", "peak_memory_bytes"}
    assert all(one.pairs == 4 for one in found)


def test_other_ranks_are_compared_at_their_ends(record: MakeRecord) -> None:
    records = [record(index, rank=rank) for index, rank in enumerate((4, 16, 32))]
    asked = {(one.factor, one.before, one.after) for one in standard_effects(records, resamples=20)}
    assert asked == {("rank", 4, 32)}
