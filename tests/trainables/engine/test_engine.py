"""The engine on a tiny model: packing, joining, leaving and restoring change nothing of what a trial learns.

Tolerances: perplexities of the same training in a pack and alone agree to 1e-3 relative in fp32 (sums are taken in
another order; a leaked row or a shared scale moves them by far more); "the same" elsewhere means equal.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from tests.support.small_engines import MIXED, SAME, TRAINING, config, join, make_engine, perplexities, run
from trainables.engine.engine import Engine
from trainables.memory.offload import RESIDENT, Offload
from trainables.packed.optimizers.in_host_memory import InHostMemory
from trainables.protocol import NotResidentError
from trainables.settings import RungSettings


def test_a_pack_learns_what_each_learns_alone(alone):
    engine = make_engine()
    join(engine, MIXED)
    outcomes = run(engine)
    assert {outcome.status for outcome in outcomes.values()} == {"complete"}
    assert all(outcome.measurements["mean_pack_size"] == 4 for outcome in outcomes.values())
    assert perplexities(outcomes) == pytest.approx(alone, rel=SAME)
    assert min(alone.values()) < 0.9 * outcomes["a"].measurements["base_perplexity"]  # it has learned something


def test_a_report_at_a_rung_brings_what_a_stopped_trial_s_record_is_made_of(alone):
    engine = make_engine(rungs=RungSettings((0.25, 0.4)))
    join(engine, {name: MIXED[name] for name in "ab"})
    outcomes = run(engine)
    assert perplexities(outcomes) == pytest.approx(
        {name: alone[name] for name in "ab"}, rel=SAME
    )  # measured, not moved
    for name in "ab":
        reports = engine.residents[name].reports
        assert [report.step for report in reports] == [3, 5]
        so_far, complete = reports[1].so_far, outcomes[name].measurements
        assert (so_far.status, so_far.reason, so_far.has_adapter) == ("stopped", None, False)
        assert [point["step"] for point in so_far.curve] == [3, 5]
        assert so_far.measurements["perplexity"] == so_far.curve[-1]["perplexity"]
        assert so_far.measurements["train_steps"] == 5
        assert so_far.measurements["test_perplexity"] is None
        assert so_far.measurements["peak_memory_bytes"] == complete["peak_memory_bytes"]
        assert so_far.comparable == outcomes[name].comparable


def test_what_waits_in_host_memory_changes_nothing():
    """Optimizer states of 8 and 32 bits and layer inputs, against an engine with all resident: equal perplexities."""
    training = replace(TRAINING, max_steps=3, evaluations=1, gradient_checkpointing=True, optimizer="adamw_8bit")
    configs = {"a": config(rank=128), "b": MIXED["b"]}  # the second's parameters have less than 4096 numbers
    found = []
    for offload in (RESIDENT, Offload(optimizer_state=True, layer_inputs=True)):
        engine = make_engine(training=training, offload=offload)
        engine._model.layer_inputs._smallest_bytes = 0
        join(engine, configs)
        found.append(perplexities(run(engine)))
        states = [one.member.optimizer for one in engine.residents.values()]
        assert all(isinstance(one, InHostMemory) == offload.optimizer_state for one in states)
        assert bool(getattr(engine._model.layer_inputs, "_lanes", {})) == offload.layer_inputs
    assert found[0] == found[1]
    assert len(found[0]) == 2


def test_one_adapter_a_step_where_the_study_says_so(alone):
    engine = make_engine(most=1)
    join(engine, {name: MIXED[name] for name in "ab"})
    outcomes = run(engine)
    assert [outcome.measurements["mean_pack_size"] for outcome in outcomes.values()] == [1, 1]
    assert perplexities(outcomes) == pytest.approx({name: alone[name] for name in "ab"}, rel=SAME)


def test_joining_and_leaving_on_the_way_changes_nothing_for_the_others(alone):
    engine = make_engine()
    join(engine, {name: MIXED[name] for name in "ab"})
    for _ in range(8):
        engine.work()
    join(engine, {"c": MIXED["c"]})
    for _ in range(4):
        engine.work()
    engine.leave("b", 0)
    join(engine, {"d": MIXED["d"]})
    outcomes = run(engine)
    assert perplexities(outcomes) == pytest.approx({name: alone[name] for name in "acd"}, rel=SAME)


def test_a_stale_incarnation_can_neither_join_nor_leave():
    engine = make_engine()
    join(engine, {"a": MIXED["a"]}, incarnation=3)
    with pytest.raises(NotResidentError, match="stale"):
        join(engine, {"a": MIXED["a"]}, incarnation=3)
    engine.leave("a", 2)
    assert "a" in engine.residents
    with pytest.raises(NotResidentError):
        engine.resident("a", 2)
    join(engine, {"a": MIXED["a"]}, incarnation=4)
    assert engine.resident("a", 4).member.step == 0


def test_a_restored_trial_continues_to_the_same_end(alone):
    engine = make_engine()
    join(engine, {"a": MIXED["a"]})
    for _ in range(6):
        engine.work()
    state, step = engine.residents["a"].state(), engine.residents["a"].member.step
    assert 0 < step < 12
    other = make_engine()
    join(other, {"a": MIXED["a"]}, incarnation=1, state=state)
    outcome = run(other)["a"]
    assert outcome.measurements["perplexity"] == pytest.approx(alone["a"], rel=1e-6)
    assert outcome.measurements["restarts"] == 1
    assert [point["step"] for point in outcome.curve] == [6, 12]


class PeakReader:
    """Stands in for a card's counter: so many bytes in the first step, one more in each that follows."""

    def __init__(self, first: int) -> None:
        self.steps, self._first = [], first

    def restart(self) -> None:
        self.steps.append(self._first + len(self.steps))

    def bytes(self) -> int:
        return self.steps[-1]


def work_until(engine: Engine, step: int) -> None:
    """Lets `a` take steps without waiting for anybody."""
    while engine.residents["a"].member.step < step:
        engine.work()
        engine.residents["a"].awaiting_since = None


def test_a_packs_peak_is_the_highest_of_the_steps_that_a_trial_took_part_in():
    """`b` comes when `a` has taken 5 of its 12 steps, and has the card to itself when `a` has ended."""
    engine = make_engine()
    engine._pack_peak = PeakReader(100)
    join(engine, {"a": MIXED["a"]})
    work_until(engine, 5)
    join(engine, {"b": MIXED["b"]})
    outcomes = run(engine)
    assert {name: one.measurements["mean_pack_size"] for name, one in outcomes.items()} == {
        "a": (5 + 2 * 7) / 12, "b": (2 * 7 + 5) / 12,
    }  # fmt: skip
    assert engine._pack_peak.steps == list(range(100, 117))
    peaks = {name: outcome.measurements["pack_peak_memory_bytes"] for name, outcome in outcomes.items()}
    assert peaks == {"a": 111, "b": 116}


def test_a_trial_that_diverges_in_its_first_step_has_that_steps_peak():
    engine = make_engine()
    engine._pack_peak = PeakReader(100)
    join(engine, {"bad": MIXED["a"]})
    engine.work()  # its cost is measured
    with torch.no_grad():
        for pair in engine.residents["bad"].member.adapter.weights.values():
            pair.b.fill_(math.inf)
    outcome = run(engine)["bad"]
    assert (outcome.status, outcome.measurements["pack_peak_memory_bytes"]) == ("diverged", 100)


def test_the_highest_peak_counts_also_where_later_steps_need_less():
    engine = make_engine()
    engine._pack_peak = PeakReader(100)
    join(engine, {"a": MIXED["a"]})
    work_until(engine, 6)
    state = engine.residents["a"].state()
    other = make_engine()
    other._pack_peak = PeakReader(50)
    join(other, {"a": MIXED["a"]}, incarnation=1, state=state)
    assert run(other)["a"].measurements["pack_peak_memory_bytes"] == 105  # it travels with the checkpoint


def test_a_cpu_has_no_peak_of_a_pack():
    engine = make_engine()
    join(engine, {"a": MIXED["a"]})
    assert run(engine)["a"].measurements["pack_peak_memory_bytes"] is None
