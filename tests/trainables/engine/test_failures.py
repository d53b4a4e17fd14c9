"""Who fails ends alone: lack of memory shrinks the passes, the guilty one is found, the others learn the same.

Tolerance: perplexities in a pack and alone agree to 1e-3 relative (see test_engine.py).
"""

from __future__ import annotations

import math

import pytest
import torch

from tests.support.small_engines import MIXED, SAME, config, join, make_engine, perplexities, run
from trainables.engine import engine as engine_module
from trainables.packed import training as training_module


def limited(monkeypatch, allows) -> list[int]:
    """Passes raise as torch does where `allows(ranks, tokens)` is false; returns the tokens of those that ran."""
    real, ran = training_module.run_pass, []

    def run_pass(model, members, data, one):
        tokens = sum(batch.rows for batch in one) * max(batch.longest for batch in one)
        if not allows([members[batch.member].adapter.config.rank for batch in one], tokens):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")
        ran.append(tokens)
        return real(model, members, data, one)

    monkeypatch.setattr(training_module, "run_pass", run_pass)
    return ran


def test_a_member_that_diverges_leaves_and_the_others_never_notice(alone):
    engine = make_engine()
    join(engine, {"a": MIXED["a"], "bad": config(rank=4, rate=1.0), "b": MIXED["b"]})
    while any(one.stage == "measuring" for one in engine.residents.values()):
        engine.work()
    with torch.no_grad():
        for pair in engine.residents["bad"].member.adapter.weights.values():
            pair.b.fill_(math.inf)
    outcomes = run(engine)
    assert outcomes["bad"].status == "diverged"
    assert "perplexity" not in outcomes["bad"].measurements
    assert perplexities({name: outcomes[name] for name in "ab"}) == pytest.approx(
        {name: alone[name] for name in "ab"}, rel=SAME
    )


def test_out_of_memory_shrinks_the_passes_and_loses_nothing(monkeypatch, alone):
    engine = make_engine()
    join(engine, MIXED)
    while any(one.stage == "measuring" for one in engine.residents.values()):
        engine.work()
    ran = limited(monkeypatch, lambda ranks, tokens: tokens <= 130)
    outcomes = run(engine)
    assert max(ran) <= 130
    assert perplexities(outcomes) == pytest.approx(alone, rel=SAME)


def test_who_does_not_fit_alone_is_infeasible_with_moment_and_bytes(monkeypatch, alone):
    engine = make_engine()
    join(engine, MIXED)
    while any(one.stage == "measuring" for one in engine.residents.values()):
        engine.work()
    limited(monkeypatch, lambda ranks, tokens: 2 not in ranks)  # c has rank 2
    outcomes = run(engine)
    assert outcomes["c"].status == "infeasible"
    assert outcomes["c"].infeasible["moment"] == "training"
    assert outcomes["c"].infeasible["requested_bytes"] == 2 * 2**30
    assert outcomes["c"].infeasible["source"] == "observed"
    assert perplexities({name: outcomes[name] for name in "abd"}) == pytest.approx(
        {name: alone[name] for name in "abd"}, rel=SAME
    )


def test_a_footprint_that_does_not_fit_ends_its_trial_alone(monkeypatch, alone):
    engine = make_engine()
    limited(monkeypatch, lambda ranks, tokens: 2 not in ranks)
    join(engine, MIXED)
    outcomes = run(engine)
    assert outcomes["c"].status == "infeasible"
    assert outcomes["c"].infeasible["moment"] == "measuring"
    assert {outcomes[name].status for name in "abd"} == {"complete"}


def test_any_other_error_ends_only_the_guilty_one(monkeypatch, alone):
    engine = make_engine()
    join(engine, MIXED)
    real = training_module.run_pass

    def run_pass(model, members, data, one):
        if any(members[batch.member].adapter.config.rank == 2 and members[batch.member].step == 3 for batch in one):
            raise ValueError("a broken row")
        return real(model, members, data, one)

    monkeypatch.setattr(training_module, "run_pass", run_pass)
    outcomes = run(engine)
    assert outcomes["c"].status == "failed"
    assert "a broken row" in outcomes["c"].reason
    assert outcomes["c"].measurements["train_steps"] == 3
    assert perplexities({name: outcomes[name] for name in "abd"}) == pytest.approx(
        {name: alone[name] for name in "abd"}, rel=SAME
    )


def test_suspects_work_alone_until_each_has_taken_a_step():
    notes: list[tuple[str, bool]] = []
    engine = make_engine(note_alone=lambda trial_id, begins: notes.append((trial_id, begins)))
    join(engine, {name: MIXED[name] for name in "ab"}, suspect=True)
    outcomes = run(engine)
    assert {outcome.status for outcome in outcomes.values()} == {"complete"}
    assert [name for name, begins in notes if begins] == ["a", "b", "a", "b"]  # measuring, then a step each
    assert notes[0::2] == [(name, True) for name, _ in notes[1::2]]
    assert all(11 / 12 < outcome.measurements["mean_pack_size"] / 2 < 1 for outcome in outcomes.values())


def test_a_base_model_whose_loss_is_not_finite_diverges():
    engine = make_engine()
    with torch.no_grad():
        engine.base.model.model.norm.weight.fill_(float("inf"))
    join(engine, {"a": config()})
    outcome = run(engine)["a"]
    assert outcome.status == "diverged"
    assert outcome.reason == (
        "the loss was nan, over adapter weights that are all finite, while it was measured alone before its training"
    )


def test_nothing_is_asked_of_a_host_while_one_is_tried_alone(monkeypatch):
    """Who joined then would be on the device beside it."""
    away = []

    def between():
        away.append(any(one.member.away for one in engine.residents.values()))

    engine = make_engine(between=between)
    join(engine, {"large": config(), "other": config(8, "all_linear")})
    while min(one.member.step for one in engine.residents.values()) < 2:
        engine.work()
        for one in engine.residents.values():
            one.awaiting_since = None
    away.clear()  # who joins while others are measured is moved aside too
    real, alone = engine_module.accumulate_gradients, []

    def accumulate(model, members, *rest):
        others = [one.member for one in engine.residents.values() if one.member not in members]
        if engine.residents["large"].member in members:
            if not all(one.away for one in others) or len(members) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            alone.append(others[0].away)
        return real(model, members, *rest)

    monkeypatch.setattr(engine_module, "accumulate_gradients", accumulate)
    before = engine.residents["large"].member.step
    engine.work()
    assert engine.residents["large"].member.step == before + 1
    assert alone == [True]  # it did its step with the other away
    assert not any(one.member.away for one in engine.residents.values())
    assert away
    assert not any(away)
