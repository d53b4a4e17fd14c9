"""Out of memory alone is a verdict once it has happened twice; it holds for its footprint, and says what was there."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support.small_engines import config, join, make_engine, run
from trainables.engine import engine as engine_module
from trainables.engine.engine import Engine
from trainables.engine.failures import Room, requested_bytes, room_of
from trainables.memory.offload import RESIDENT, Offload
from trainables.settings import BaseModelSettings, DatasetSettings, TrainingSettings, TrialSettings
from trainables.verdicts import MOST_SHARED_BYTES, Conditions

GIB, MIB = 2**30, 2**20


def torchs_message(total: float, free: float, limit: float | None, used: float, idle: float) -> str:
    """As torch writes it, sizes in GiB."""
    allowed = "" if limit is None else f"{limit:.2f} GiB allowed; "
    return (
        f"OutOfMemoryError: CUDA out of memory. Tried to allocate 512.00 MiB. GPU 0 has a total capacity of "
        f"{total:.2f} GiB of which {free:.2f} GiB is free. Including non-PyTorch memory, this process has 9.00 GiB "
        f"memory in use. {allowed}Of the allocated memory {used:.2f} GiB is allocated by PyTorch, and {idle:.2f} GiB "
        "is reserved by PyTorch but unallocated. If reserved but unallocated memory is large try setting ..."
    )


@pytest.mark.parametrize(
    ("sizes", "room"),
    [
        ((14.56, 0.25, None, 13.0, 0.75), Room(GIB // 4, 9 * GIB // 16)),  # a card of its own: the context alone
        ((14.5, 0.25, None, 6.0, 0.25), Room(GIB // 4, 8 * GIB)),  # another process has 7.5 GiB and more
        ((140.0, 120.0, 14.0, 13.0, 0.75), Room(GIB // 4, 0)),  # its own limit was full, not the card
        ((140.0, 120.0, 14.0, 13.0, 1.5), Room(0, 0)),
    ],
)
def test_what_was_there_is_read_from_torchs_message(sizes: tuple[float, ...], room: Room) -> None:
    """Asked of the card afterwards, 120 GiB were free under a limit of 14. To 0.01 GiB, as torch writes it."""
    found = room_of(torchs_message(*sizes))
    assert found.available_bytes == pytest.approx(room.available_bytes, abs=0.011 * GIB)
    assert found.shared_bytes == pytest.approx(room.shared_bytes, abs=0.011 * GIB)
    assert requested_bytes(torchs_message(*sizes)) == 512 * MIB


@given(st.text(max_size=200))
def test_any_other_message_says_nothing(message: str) -> None:
    assert room_of(message) == Room()
    assert room_of(f"CUDA out of memory. {message}") == Room()


def tried(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, fails: list[bool], message: str = "Tried to allocate"
) -> list:
    """Measurements of rank 2 run out as `fails` says, one after the other; returns the ranks measured."""
    ranks, real = [], engine._costs._measure

    def measured(one):
        ranks.append(one.rank)
        if one.rank == 2 and (fails.pop(0) if fails else False):
            raise torch.OutOfMemoryError(message)
        return real(one)

    monkeypatch.setattr(engine._costs, "_measure", measured)
    return ranks


@pytest.mark.parametrize(("fails", "runs", "status"), [([True], 2, "complete"), ([True, True], 2, "infeasible")])
def test_a_footprint_that_ran_out_is_tried_once_more_alone(monkeypatch, fails, runs, status) -> None:
    engine = make_engine()
    ranks = tried(engine, monkeypatch, fails)
    join(engine, {"a": config(2)})
    assert run(engine)["a"].status == status
    assert ranks == [2] * runs


def test_a_verdict_holds_for_later_trials_of_the_footprint_and_no_others(monkeypatch) -> None:
    engine = make_engine()
    ranks = tried(engine, monkeypatch, [True] * 9)
    join(engine, {"a": config(2)})
    first = run(engine)["a"]
    join(engine, {"kin": config(2, rate=1e-3, seed=5), "other": config(3)})
    outcomes = run(engine)
    assert ranks == [2, 2, 3]
    assert first.reason == "out of memory while measuring, alone on the device and tried twice"
    kin = outcomes["kin"]
    assert (kin.status, outcomes["other"].status) == ("infeasible", "complete")
    assert kin.reason == "a of the same footprint ran out of memory alone, so this one was not measured"
    assert kin.infeasible == {**first.infeasible, "ran_out": "a"}
    assert first.infeasible["conditions"]["engine"] >= 2
    assert first.infeasible["conditions"]["data"] == engine.dataset.fingerprint


def test_where_another_process_held_the_card_the_next_of_the_footprint_is_tried(monkeypatch) -> None:
    engine = make_engine()
    message = torchs_message(14.5, 0.25, None, 6.0, 0.25)
    assert (room_of(message).shared_bytes or 0) > MOST_SHARED_BYTES
    ranks = tried(engine, monkeypatch, [True, True], message)
    join(engine, {"a": config(2)})
    assert run(engine)["a"].reason.endswith("tried twice; 8.00 GiB of the card were not this study's")
    join(engine, {"kin": config(2, seed=5)})
    assert run(engine)["kin"].status == "complete"
    assert ranks == [2, 2, 2]


@pytest.mark.parametrize(("nats", "says"), [(float("nan"), "1 of 6 rows was not finite (the first is row 3, with nan)"),
                                            (1e6, "perplexity beyond any float")])  # fmt: skip
def test_an_evaluation_that_is_not_finite_says_what_was_not(monkeypatch, nats: float, says: str) -> None:
    engine = make_engine()
    join(engine, {"a": config()})
    real = engine._quality.evaluate

    def evaluate(residents):
        (one,) = real(residents)
        return [type(one)((*one.nats[:2], nats, *one.nats[3:]), one.tokens, one.correct)]

    monkeypatch.setattr(engine._quality, "evaluate", evaluate)
    outcome = run(engine)["a"]
    assert outcome.status == "diverged"
    assert outcome.reason.startswith("in the evaluation after optimizer step 6 ")
    assert says in outcome.reason


def test_gradients_that_are_not_finite_are_the_reason_and_not_the_loss(monkeypatch) -> None:
    engine = make_engine()
    join(engine, {"a": config()})
    while engine.residents["a"].member.step < 2:
        engine.work()
    pair, real = next(iter(engine.residents["a"].member.adapter.weights.values())), engine_module.accumulate_gradients

    def accumulate(*arguments):
        losses = real(*arguments)
        pair.a.grad[0, 0] = float("nan")
        return losses

    monkeypatch.setattr(engine_module, "accumulate_gradients", accumulate)
    outcome = run(engine)["a"]
    assert outcome.status == "diverged"
    assert outcome.reason.startswith("in optimizer step 3 the gradient norm was nan: 1 of ")
    assert "q_proj.lora_A) had gradients that are not finite" in outcome.reason
    assert outcome.measurements["train_steps"] == 2


def test_a_verdict_holds_where_as_much_waits_in_host_memory() -> None:
    def conditions(offload: Offload = RESIDENT, **training: Any) -> Conditions:
        settings = TrialSettings(BaseModelSettings("m"), DatasetSettings("mine"), TrainingSettings(**training))
        return Conditions.of(settings, 1, "data", offload)

    every = [
        conditions(),
        conditions(Offload(layers=2)),
        conditions(Offload(layers=3)),
        conditions(optimizer="adamw_8bit"),
    ]
    for one in every:
        facts = {"conditions": json.loads(json.dumps(one.to_dict()))}
        assert [other.hold(facts) for other in every] == [other is one for other in every]
    assert {"offload", "optimizer"}.isdisjoint(every[0].to_dict())  # as records of earlier versions have it
