"""When a host begins to load and when its process ends, with an engine that only lists who has joined."""

from __future__ import annotations

import os
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from trainables.actors import base_model_host
from trainables.actors.base_model_host import BaseModelHost
from trainables.actors.host_loading import HostSettings
from trainables.protocol import JoinRequest


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the hosts that have begun to load."""
    begun: list[str] = []

    def make_engine(settings: HostSettings, *hooks: Any) -> Any:
        begun.append(settings.name)
        joined: list[JoinRequest] = []
        return SimpleNamespace(join=joined.append, joined=joined, work=lambda: False, statuses=list, seconds=dict)

    monkeypatch.setattr(base_model_host, "make_engine", make_engine)
    monkeypatch.setattr(base_model_host, "NodeNotice", lambda watch_cloud: SimpleNamespace(leaving=False))
    monkeypatch.setattr(base_model_host, "actor_state", lambda actor_id: "ALIVE")
    return begun


def host(name: str, waits: bool, **environment: str) -> BaseModelHost:
    silent = SimpleNamespace(remote=lambda *word: None)
    settings = HostSettings(None, name, "fp32", "cpu", 1, waits=waits, environment=environment)  # type: ignore[arg-type]
    return BaseModelHost(settings, SimpleNamespace(note_statuses=silent, note_stages=silent))


def wait_until(holds: Any, seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(holds())


def test_a_host_that_waits_loads_when_its_first_trial_joins(loads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    imported = threading.Event()
    monkeypatch.setattr(base_model_host, "import_ahead", imported.set)
    waiting = host("waiting", waits=True)
    assert imported.wait(60)
    at_once = host("at once", waits=False)
    assert wait_until(lambda: loads == ["at once"])
    waiting.join(JoinRequest("a", 0, None), "actor of a")  # type: ignore[arg-type]
    assert loads == ["at once", "waiting"]
    assert [request.trial_id for request in waiting._engine.joined] == ["a"]
    assert at_once._engine.joined == []
    waiting._watched.clear()  # its thread continues to watch them


def test_a_host_whose_training_breaks_ends_its_process(loads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its trials then notice its death; else they would poll for ever a host that never trains again."""
    ended_with: list[int] = []
    monkeypatch.setattr(base_model_host, "import_ahead", lambda: None)
    monkeypatch.setattr(base_model_host, "os", SimpleNamespace(environ={}, _exit=ended_with.append))
    broken = host("broken", waits=False)
    assert wait_until(lambda: broken._engine is not None)
    assert ended_with == []
    broken._engine.work = lambda: 1 / 0
    assert wait_until(lambda: ended_with == [1])


def test_what_cannot_be_imported_is_a_load_error(loads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ImportError("no such library")

    monkeypatch.setattr(base_model_host, "import_ahead", fail)
    broken = host("broken", waits=True)
    with pytest.raises(base_model_host.HostLoadError, match="no such library"):
        broken.join(JoinRequest("a", 0, None), "actor of a")  # type: ignore[arg-type]
    assert loads == []


def test_libraries_find_the_environment_that_the_host_was_made_with(
    loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str | None] = []
    monkeypatch.setenv("LORA_FRONTIER_TEST", "before")
    monkeypatch.setattr(base_model_host, "import_ahead", lambda: found.append(os.environ.get("LORA_FRONTIER_TEST")))
    host("with cards", waits=False, LORA_FRONTIER_TEST="2,3")
    assert wait_until(lambda: found == ["2,3"])


def test_a_trial_leaves_once_ray_says_that_its_actor_is_dead(loads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where Ray says nothing of it: its table of actors may be out of reach for a moment."""
    left: list[tuple[str, int]] = []
    states: dict[str, str | None] = {"actor of a": "ALIVE", "actor of b": "ALIVE"}
    monkeypatch.setattr(base_model_host, "import_ahead", lambda: None)
    monkeypatch.setattr(base_model_host, "actor_state", states.__getitem__)
    monkeypatch.setattr(base_model_host, "WATCH_SECONDS", 0.0)
    watching = host("watching", waits=False)
    for trial_id in ("a", "b"):
        watching.join(JoinRequest(trial_id, 3, None), f"actor of {trial_id}")  # type: ignore[arg-type]
    watching._engine.leave = lambda trial_id, incarnation: left.append((trial_id, incarnation))
    states.update({"actor of a": "DEAD", "actor of b": None})
    assert wait_until(lambda: left == [("a", 3)])
    assert set(watching._watched) == {"b"}
    watching._watched.clear()  # its thread continues to watch them


def test_ray_says_what_an_actor_is_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"1a": {"ActorID": "1a", "State": "DEAD"}}
    monkeypatch.setattr(base_model_host.ray._private.state, "actors", lambda actor_id: found.get(actor_id, {}))
    assert base_model_host.actor_state("1a") == "DEAD"
    assert base_model_host.actor_state("2b") is None
