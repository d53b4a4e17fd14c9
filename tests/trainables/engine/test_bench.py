"""Hashes that are equal just where two trials may be compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.small_engines import a_bench, make_engine
from trainables.comparability import offloaded_cost
from trainables.engine.bench import comparable, memory_conditions
from trainables.engine.pass_budget import PassBudget
from trainables.measure.evaluation import Evaluation
from trainables.memory.offload import RESIDENT, Offload

FINAL = Evaluation((2.0, 4.0), (1, 2), (True, False))


def test_what_may_be_compared_has_equal_hashes() -> None:
    bench = a_bench()
    same = comparable(bench)
    assert comparable(a_bench(evaluation=FINAL)) == same

    def of(**changes: Any) -> dict[str, str]:
        return comparable(a_bench(settings=replace(bench.settings, **changes)))

    training, dataset = bench.settings.training, bench.settings.dataset
    learning = of(training=replace(training, epochs=3.0, schedule="linear", weight_decay=0.1))
    assert learning == same
    for cost_only in (
        of(training=replace(training, micro_batch_size=4)),
        of(training=replace(training, gradient_accumulation_steps=8)),
        of(training=replace(training, gradient_checkpointing=False)),
    ):
        assert cost_only["quality"] == same["quality"]
        assert cost_only["cost"] != same["cost"]
    for both in (
        of(dataset=replace(dataset, max_tokens=65)),
        of(base_model=replace(bench.settings.base_model, double_quantization=False)),
        comparable(a_bench(dataset=replace(bench.dataset, fingerprint="another"))),
    ):
        assert both["quality"] != same["quality"]
        assert both["cost"] != same["cost"]


def test_an_engine_tells_its_bench_and_its_budget_what_waits_in_host_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Offload] = []
    of = PassBudget.of

    def noting(base: Any, settings: Any, offload: Offload = RESIDENT) -> PassBudget:
        told.append(offload)
        return of(base, settings, offload)

    monkeypatch.setattr(PassBudget, "of", noting)
    for offload in (RESIDENT, Offload(optimizer_state=True)):
        bench = make_engine(offload=offload)._bench
        assert bench.offload == offload
        assert memory_conditions(bench).offload == told.pop() == offload
    assert comparable(bench)["cost"] == offloaded_cost(comparable(replace(bench, offload=RESIDENT))["cost"], offload)
