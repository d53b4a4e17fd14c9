"""A trial's actor: its name, and a host that is busy or has died."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray

from tests.support.lora_cases import lora_config
from trainables.actors import lora_trial
from trainables.actors.base_model_host import HostLoadError
from trainables.actors.lora_trial import LoraTrial
from trainables.memory.offload import RESIDENT, Offload
from trainables.protocol import News


def test_a_trial_is_named_by_its_precision_and_before_it_has_one_by_its_class() -> None:
    """Ray asks for the name after a setup that was cut short as well."""
    trial = LoraTrial.__new__(LoraTrial)
    assert repr(trial) == "LoraTrial"
    trial._config = lora_config(precision="nf4")
    assert repr(trial) == "LoraTrial(nf4)"


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> LoraTrial:
    """A trial at work on a host, of which it has no state yet; `ray.get` raises a reply that is an error."""
    found = LoraTrial.__new__(LoraTrial)
    found._trial_id, found._incarnation, found._seen, found._told_step = "t0", 0, 0, -1
    found._state, found._state_step, found._step, found._state_time, found._state_seconds = None, 0, 0, 0.0, 0.0
    found._deaths, found._suspect, found._offload = 0, False, RESIDENT

    def get(reply: Any, timeout: float) -> Any:
        if isinstance(reply, Exception):
            raise reply
        return reply

    monkeypatch.setattr(lora_trial.ray, "get", get)
    return found


def asked(replies: list[Any]) -> Any:
    """A remote method that replies so, call by call."""
    return SimpleNamespace(remote=lambda *question: replies.pop(0))


@pytest.mark.parametrize("trouble", [TimeoutError("busy"), ray.exceptions.RayActorError()])
def test_a_host_that_gives_no_state_now_costs_a_checkpoint_and_nothing_else(
    trial: LoraTrial, trouble: Exception
) -> None:
    trial._host = SimpleNamespace(advance=asked([News((), None, 100)]), state=asked([trouble, b"state"]))
    assert trial._news_for_tune(News((), None, 50), 0) is None
    trial._state_time = 0.0  # the pause until the next try is over
    result = trial.step()
    assert (result["step"], result["should_checkpoint"]) == (100, True)
    assert trial._state == b"state"


def test_a_join_that_takes_too_long_is_tried_again_and_its_host_is_not_ended(
    trial: LoraTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A join waits for the unit of work under way; the keeper ends a host that it is told has died."""
    dead: list[Any] = []
    joined = [TimeoutError("busy"), None]
    host = SimpleNamespace(join=asked(joined), advance=asked([News((), None, 50)]), state=asked([b"state"]))

    def host_for(*where: Any, dead_host: Any) -> Any:
        dead.append(dead_host)
        return host

    trial._incarnation, trial._host, trial._config = -1, None, lora_config(precision="nf4")
    trial._keeper = SimpleNamespace(
        host_for=SimpleNamespace(remote=lambda *where, dead: host_for(*where, dead_host=dead)),
        next_incarnation=asked([0, 1]),
        note_trial_stages=SimpleNamespace(remote=lambda stages: None),
    )
    context = SimpleNamespace(get_node_id=lambda: "node", get_actor_id=lambda: "actor")
    monkeypatch.setattr(lora_trial.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(lora_trial.ray, "get_gpu_ids", list)
    assert trial.step()["step"] == 50
    assert dead == [None, None]
    assert (trial._incarnation, trial._deaths, trial._suspect) == (1, 0, False)


@pytest.mark.parametrize(("told", "offload"), [({}, RESIDENT), ({"offload": {"layers": 4}}, Offload(layers=4))])
def test_a_trial_asks_for_a_host_that_offloads_as_its_phase_does(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, Any], offload: Offload
) -> None:
    asked_for: list[Any] = []

    def asked_for_a_host(reply: Any, timeout: float) -> None:
        raise LookupError("nothing further is looked at")

    monkeypatch.setattr(lora_trial.ray, "get", asked_for_a_host)
    monkeypatch.setattr(lora_trial.ray, "get_actor", lambda name: SimpleNamespace(host_for=remote(asked_for)))
    monkeypatch.setattr(lora_trial.ray, "get_gpu_ids", lambda: [0])
    monkeypatch.setattr(lora_trial.ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "node"))
    one = LoraTrial.__new__(LoraTrial)
    one.setup({"trial_id": "t0", "config": lora_config(precision="nf4").to_dict(), "keeper": "keeper", **told})
    with pytest.raises(LookupError):
        one._join()
    assert asked_for == [("node", ["0"], "nf4", offload)]


def remote(calls: list[Any]) -> Any:
    """A remote method that notes what it is asked, and replies nothing."""
    return SimpleNamespace(remote=lambda *where, dead: calls.append(where))


def test_a_host_that_finds_too_little_memory_for_its_base_fails_its_trial_with_what_it_says(
    trial: LoraTrial, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "BaseModelError: 13.00 GiB of host memory must be free; 9.00 GiB are"
    trial._incarnation, trial._host, trial._config = -1, None, lora_config(precision="fp16")
    host = SimpleNamespace(join=asked([HostLoadError(said)]))
    trial._keeper = SimpleNamespace(
        host_for=SimpleNamespace(remote=lambda *where, dead: host),
        next_incarnation=asked([0]),
        loads_anew=asked([False]),
    )
    context = SimpleNamespace(get_node_id=lambda: "node", get_actor_id=lambda: "actor")
    monkeypatch.setattr(lora_trial.ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(lora_trial.ray, "get_gpu_ids", lambda: [0])
    result = trial.step()
    assert (result["record_status"], result["done"]) == ("failed", True)
    assert result["reason"] == f"the base model could not be loaded: {said}"
