"""A finished adapter is handed over beside the training, as it was, and costs its own trial at most."""

from __future__ import annotations

import threading
import traceback

import pytest
import torch
from safetensors.torch import load

from tests.support.small_engines import config, join, make_engine, run
from trainables.engine.adapter_handover import HandoverError
from trainables.protocol import ADAPTER_UNWRITTEN


def test_a_pack_trains_on_while_a_finished_adapter_is_written():
    """The first to finish is held back until the other has taken all its steps; what changes it then is not kept."""
    release, kept = threading.Event(), {}

    def keep(trial_id: str, files: dict[str, bytes]) -> None:
        assert release.wait(60)
        kept[trial_id] = load(files["adapter_model.safetensors"])

    engine = make_engine(most=1, keep_adapter=keep)
    join(engine, {"a": config(seed=3), "b": config(8, "all_linear")})
    a, b = engine.residents["a"], engine.residents["b"]
    while b.next_work != "finishing":
        assert engine.work()
        b.awaiting_since = a.awaiting_since = None
    assert (a.stage, a.handover.done(), b.handover) == ("finishing", False, None)  # they go one by one
    weights = {name: tensor.clone() for name, tensor in a.member.adapter.named_tensors().items()}
    for parameter in a.member.adapter.parameters():
        parameter.data.zero_()
    release.set()
    outcomes = run(engine)
    assert {outcome.status for outcome in outcomes.values()} == {"complete"}
    assert set(kept) == {"a", "b"}
    for name, tensor in weights.items():
        assert torch.equal(kept["a"][f"base_model.model.{name}.weight"], tensor)
    assert {"measuring", "training", "evaluating", "testing", "sampling", "finishing"} >= set(engine.seconds()) - {
        "waiting",
        "all",
    }


def test_no_footprint_is_measured_while_an_adapter_is_on_its_way():
    """Its copies would be in the process' peak."""
    kept, order = threading.Event(), []

    def keep(trial_id: str, files: dict[str, bytes]) -> None:
        kept.wait(0.5)
        order.append(f"{trial_id} kept")

    engine = make_engine(most=1, keep_adapter=keep)
    measured = engine._costs._measure
    engine._costs._measure = lambda one: (order.append(f"rank {one.rank} measured"), measured(one))[1]
    join(engine, {"a": config(4)})
    while engine.residents["a"].handover is None:
        assert engine.work()
        engine.residents["a"].awaiting_since = None
    join(engine, {"b": config(2)})
    run(engine)
    assert order == ["rank 4 measured", "a kept", "rank 2 measured", "b kept"]


def test_a_keeper_that_was_busy_the_first_time_is_called_again():
    calls = []

    def keep(trial_id: str, files: dict[str, bytes]) -> None:
        calls.append(trial_id)
        if len(calls) == 1:
            raise TimeoutError("the keeper is busy")

    engine = make_engine(keep_adapter=keep)
    join(engine, {"a": config()})
    assert run(engine)["a"].status == "complete"
    assert calls == ["a", "a"]


def test_an_adapter_that_cannot_be_written_fails_its_trial_alone():
    def keep(trial_id: str, files: dict[str, bytes]) -> None:
        if trial_id == "a":
            raise MemoryError("No space left")  # not the card's: nothing is infeasible

    engine = make_engine(keep_adapter=keep)
    join(engine, {"a": config(), "b": config(seed=1)})
    outcomes = run(engine)
    assert {name: outcome.status for name, outcome in outcomes.items()} == {"a": "failed", "b": "complete"}
    assert "the adapter could not be kept: MemoryError: No space left" in outcomes["a"].reason


@pytest.mark.parametrize(
    ("error", "unwritten"),
    [
        (OSError(28, "No space left on device"), True),
        (PermissionError(13, "Permission denied"), True),
        (TimeoutError("the keeper is busy"), False),
        (RuntimeError("the keeper has died"), False),
    ],
)
def test_an_adapter_that_finds_no_room_is_told_apart(error: Exception, unwritten: bool):
    """The driver stops the study then, as for a record that it cannot write, instead of failing a trained trial."""

    def keep(trial_id: str, files: dict[str, bytes]) -> None:
        raise error

    engine = make_engine(most=1, keep_adapter=keep)
    join(engine, {"a": config()})
    outcome = run(engine)["a"]
    assert (outcome.status, ADAPTER_UNWRITTEN in outcome.reason) == ("failed", unwritten)
    assert str(error) in outcome.reason


def test_the_copies_of_a_handover_that_failed_are_gone_once_it_is_drained():
    """Its exception waits for `end`, and what is measured before that must not count them."""

    def keep(trial_id: str, files: dict[str, bytes]) -> None:
        raise OSError("No space left on device")

    engine = make_engine(keep_adapter=keep)
    join(engine, {"a": config()})
    handover = engine._handover.begin("a", engine.residents["a"].member.adapter)
    engine._handover.drain()
    names = {name for frame, _ in traceback.walk_tb(handover.exception().__traceback__) for name in frame.f_locals}
    assert not names & {"tensors", "files"}
    with pytest.raises(HandoverError, match="No space left"):
        engine._handover.end(handover)
