"""When a host begins to load and when its process ends, with an engine that only lists who has joined."""

from __future__ import annotations

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
    monkeypatch.setattr(base_model_host._Watched, "is_dead", lambda self: False)
    return begun


def host(name: str, waits: bool) -> BaseModelHost:
    told = SimpleNamespace(remote=lambda *word: None)
    keeper = SimpleNamespace(note_statuses=told, note_stages=told)
    return BaseModelHost(HostSettings(None, name, "fp32", "cpu", 1, waits=waits), keeper)  # type: ignore[arg-type]


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
    waiting.join(JoinRequest("a", 0, None), None)  # type: ignore[arg-type]
    assert loads == ["at once", "waiting"]
    assert [request.trial_id for request in waiting._engine.joined] == ["a"]
    assert at_once._engine.joined == []
    waiting._watched.clear()  # its thread continues to watch them


def test_a_host_whose_training_breaks_ends_its_process(loads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its trials then notice its death; else they would poll for ever a host that never trains again."""
    ended_with: list[int] = []
    monkeypatch.setattr(base_model_host, "import_ahead", lambda: None)
    monkeypatch.setattr(base_model_host, "os", SimpleNamespace(_exit=ended_with.append))
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
        broken.join(JoinRequest("a", 0, None), None)  # type: ignore[arg-type]
    assert loads == []
