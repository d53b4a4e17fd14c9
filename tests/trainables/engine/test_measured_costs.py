"""Each footprint is measured once, alone, in a slot that leaves the pack as it was."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch

from search_spaces.trial_config import TrialConfig
from tests.support.small_engines import MIXED, config, join, make_engine, run
from trainables.engine import measured_costs
from trainables.engine.engine import Engine


def test_a_footprint_is_measured_once_for_all_that_share_it(monkeypatch):
    engine = make_engine()
    join(engine, {"a": config(), "b": config(rate=1e-3), "c": config(seed=1), "d": config(8)})
    measured = []
    real = engine._costs._measure
    monkeypatch.setattr(engine._costs, "_measure", lambda one: measured.append(one.rank) or real(one))
    outcomes = run(engine)
    assert sorted(measured) == [4, 8]
    peaks = {name: outcome.measurements["peak_memory_bytes"] for name, outcome in outcomes.items()}
    assert peaks["a"] == peaks["b"] == peaks["c"]


def slots_of(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, seconds: float, fails: int | None = None
) -> list[list[int]]:
    """The ranks that are measured in each slot, each so many seconds long; rank `fails` does not fit."""
    slots, clock = [], itertools.count()
    real, measure = measured_costs.parked, engine._costs._measure

    def measured(one: TrialConfig):
        slots[-1].append(one.rank)
        if one.rank == fails:
            raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB")
        return measure(one)

    monkeypatch.setattr(measured_costs, "parked", lambda members: slots.append([]) or real(members))
    monkeypatch.setattr(measured_costs, "time", SimpleNamespace(monotonic=lambda: seconds * next(clock)))
    monkeypatch.setattr(engine._costs, "_measure", measured)
    while any(one.stage == "measuring" for one in engine.residents.values()):
        engine.work()
    return slots


def test_new_footprints_share_a_slot(monkeypatch):
    """Moving the others aside takes its time; nobody waits for a slot to end where nobody is at work yet."""
    engine = make_engine()
    join(engine, {f"rank {rank}": config(rank) for rank in (1, 2, 3, 4, 5)})
    join(engine, {"again": config(2, seed=1)})
    assert slots_of(engine, monkeypatch, 4.0) == [[1, 2, 3, 4, 5]]


def test_trials_at_work_wait_for_a_slot_no_longer_than_its_time(monkeypatch):
    """They wait for news."""
    engine = make_engine()
    join(engine, {"at work": config(6)})
    for _ in range(3):
        engine.work()
    assert engine.residents["at work"].stage == "training"
    join(engine, {f"rank {rank}": config(rank) for rank in (1, 2, 3, 4, 5)})
    assert slots_of(engine, monkeypatch, 4.0) == [[1, 2, 3], [4, 5]]


def test_who_joins_within_a_slot_is_moved_aside_and_measured_in_it(monkeypatch):
    waiting = [{"third": config(2)}, {"fourth": config(1)}]  # one unlike the others, one like the first
    engine = make_engine(between=lambda: waiting and join(engine, waiting.pop(0)))
    join(engine, {"first": config(1), "second": config(4)})
    away, measure = [], engine._costs._measure

    def measured(one: TrialConfig):
        away.append([resident.member.away for resident in engine.residents.values()])
        return measure(one)

    monkeypatch.setattr(engine._costs, "_measure", measured)
    engine.work()
    assert away == [[True] * 2, [True] * 3, [True] * 4]
    assert not any(resident.member.away for resident in engine.residents.values())
    assert {outcome.status for outcome in run(engine).values()} == {"complete"}


def test_a_footprint_that_fails_ends_its_slot_and_no_other_trial(monkeypatch):
    """It gets a slot of its own, and is tried once more before its trial ends."""
    engine = make_engine()
    join(engine, {f"rank {rank}": config(rank) for rank in (1, 2, 3, 4)})
    assert slots_of(engine, monkeypatch, 0.0, fails=2) == [[1, 2], [2], [2], [3, 4]]
    assert engine.residents["rank 2"].outcome.status == "infeasible"
    assert all(engine.residents[f"rank {rank}"].outcome is None for rank in (1, 3, 4))


def test_a_suspects_footprint_is_measured_by_itself(monkeypatch):
    engine = make_engine()
    join(engine, {f"rank {rank}": config(rank) for rank in (1, 2, 3, 4)})
    engine.residents["rank 3"].suspect = True
    assert slots_of(engine, monkeypatch, 0.0) == [[3], [1, 2, 4]]


def test_who_has_ended_and_not_left_is_not_measured(monkeypatch):
    engine = make_engine()
    join(engine, {"ended": config(16)})
    run(engine)
    ended = engine.residents["ended"]
    there, measure = [], engine._costs._measure

    def measured(one: TrialConfig):
        there.append(ended.member.away)
        return measure(one)

    monkeypatch.setattr(engine._costs, "_measure", measured)
    join(engine, {"new": config(4)})
    engine.work()
    assert (ended.stage, there) == ("ended", [True])
    assert not ended.member.away


def test_measuring_leaves_a_pack_in_progress_bit_for_bit_as_it_was():
    engine = make_engine()
    join(engine, {"a": MIXED["a"]})
    for _ in range(6):
        engine.work()
    before = {name: tensor.clone() for name, tensor in engine.residents["a"].member.adapter.named_tensors().items()}
    join(engine, {"d": config(16)})
    engine.work()
    assert engine.residents["d"].stage == "training"
    after = engine.residents["a"].member.adapter.named_tensors()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_pass_that_is_timed_is_long_enough_to_tell_a_streamed_base(monkeypatch):
    """Passes of 600 tokens that take 2.8 s, nearly all of it copies: four rows all the same, as memory allows."""
    seconds_per_token = 2.8 / 600
    assert measured_costs.timed_tokens(seconds_per_token) == 643
    assert measured_costs.timed_tokens(seconds_per_token, 600) == 2400
    assert measured_costs.timed_tokens(1e-4, 600) == 30_000
    engine = make_engine()
    longest = max(len(row.tokens) for row in engine.dataset.train.rows)
    most = []
    monkeypatch.setattr(measured_costs, "measure_pass_cost", lambda *arguments: most.append(arguments[-1]))
    for layers, expected in ((frozenset(), 3), (frozenset({1}), 4 * longest)):
        engine._model.streams.layers = layers
        engine._costs._measured_pass_cost(config(), seconds_per_token=1.0)
        assert most.pop() == expected
