"""Patience with a Ray that starts slowly: as long as told, one sentence at the end, and nothing left behind."""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from study.cluster import ray_patience
from study.cluster.ray_patience import busy_text, is_too_late, patient


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_patience.time, "sleep", lambda seconds: None)


def services(known_after: int) -> Any:
    """Stands for Ray's, which knows its node from the n-th question on."""
    asked = count()

    def get_node(address: str, node: str) -> dict[str, str]:
        if next(asked) < known_after:
            raise RuntimeError("No node found")
        return {"address": address, "node": node}

    return SimpleNamespace(get_node=get_node)


def test_a_node_that_comes_late_is_waited_for() -> None:
    slow = services(known_after=50)
    own = slow.get_node
    clock = count(step=1)
    with patient(slow, seconds=60, now=lambda: float(next(clock))):
        assert slow.get_node("a:1", "n") == {"address": "a:1", "node": "n"}
    assert slow.get_node is own


def test_a_node_that_never_comes_is_not_waited_for_longer_than_told() -> None:
    never, clock = services(known_after=10**9), count(step=1)
    own = never.get_node
    with pytest.raises(RuntimeError, match="No node found"), patient(never, 60, lambda: float(next(clock))):
        never.get_node("a:1", "n")
    assert next(clock) == 61  # the first look is at the beginning, the last finds that its time has come
    assert never.get_node is own


def test_ray_asks_by_that_name_and_waits_a_fixed_time() -> None:
    """What the patience rests on: Ray calls `services.get_node` and looks at its clock afterwards."""
    node = pytest.importorskip("ray._private.node")
    with open(node.__file__, encoding="utf-8") as file:
        source = file.read()
    assert "ray._private.services.get_node(" in source
    assert "raylet_start_wait_time_s = 30" in source
    assert source.index("ray._private.services.get_node(") < source.index(
        "time.monotonic() - start_time > raylet_start"
    )
    assert "The current node timed out during startup" in source
    assert "RAY_gcs_server_port_wait_time_s" in source


def test_what_is_too_late_and_what_is_another_fault() -> None:
    assert is_too_late(Exception("The current node timed out during startup. This could happen because some"))
    assert not is_too_late(ConnectionError("nobody is there"))


def test_the_sentence_names_the_load_where_it_is_the_cause() -> None:
    assert busy_text(181.4, 23.7, 2) == (
        "Ray must start within 181 s and did not: the machine is busy (24 processes want its 2 cores). End other "
        "programs, or try again later"
    )
    assert "see its logs" in busy_text(181.4, 0.3, 2)
