"""Which hosts are asked for ahead of their trials, on machines that are lists of nodes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from study.plan.phases import StudyPhase
from study.plan.shares import Phase
from study.records.timeline.file import read_timeline
from study.run import hosts
from study.run.hosts import WAITING_BYTES, card_names, keep_timeline, prepare_hosts, timeline_kept
from trainables.memory.offload import RESIDENT, Offload
from trainables.timeline import Stage, timeline


def phase(
    precision: str, trials: int = 4, cards: int = 1, gpu: bool = True, places: int = 4, offload: Offload = RESIDENT
) -> StudyPhase:
    resources = {"GPU": 0.5} if gpu else {"CPU": 0.5}
    return StudyPhase(Phase(precision, trials, places, resources, cards, per_device=2, offload=offload))


def asked(
    monkeypatch: pytest.MonkeyPatch,
    nodes: list[dict[str, float]],
    phases: list[StudyPhase],
    number: int,
    address: str = "local",
) -> Any:
    """What the keeper is asked for, in order."""
    calls: list[tuple[Any, ...]] = []

    class Keeper:
        def __getattr__(self, name: str) -> Any:
            return SimpleNamespace(remote=lambda *values: calls.append((name, *values)))

    alive = [{"NodeID": f"n{place}", "Alive": True, "Resources": one} for place, one in enumerate(nodes)]
    monkeypatch.setattr(hosts.ray, "nodes", lambda: alive)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(hosts, "ray_address", lambda: address)
    forecast: Any = SimpleNamespace(largest_bytes={"nf4": 5, "fp16": 9}.get)
    prepare_hosts(Keeper(), phases, number, forecast)
    return calls


def test_on_one_machine_with_cards_the_first_hosts_load_and_the_next_ones_are_made_to_wait(monkeypatch):
    phases, here = [phase("fp16"), phase("nf4", trials=3)], [{"CPU": 8.0, "GPU": 2.0}]
    following = ("prepare_next", "nf4", 4, WAITING_BYTES, RESIDENT)
    first = [("prepare", "n0", (card,), "fp16", False, RESIDENT) for card in "01"]
    assert asked(monkeypatch, here, phases, 0) == [*first, following]
    assert asked(monkeypatch, here, phases, 1) == []
    assert asked(monkeypatch, here, [phase("fp16", trials=1)], 0) == first[:1]


def test_cards_that_the_study_does_not_use_are_left_alone(monkeypatch):
    """Two places on one card, as `hardware.gpus: 1` gives them, of a machine with eight."""
    found = asked(monkeypatch, [{"CPU": 8.0, "GPU": 8.0}], [phase("fp16", trials=32, places=2)], 0)
    assert [name for _, _, name, *_ in found] == [("0",)]


def test_on_a_cluster_that_names_its_cards_itself_the_first_hosts_wait_too(monkeypatch):
    found = asked(monkeypatch, [{"CPU": 8.0, "GPU": 1.0}], [phase("fp16")], 0, address="auto")
    assert found == [("prepare", "n0", ("0",), "fp16", True, RESIDENT)]


def test_on_several_machines_only_the_next_hosts_are_known(monkeypatch):
    nodes = [{"CPU": 8.0, "GPU": 1.0}] * 2
    assert asked(monkeypatch, nodes, [phase("fp16"), phase("nf4")], 0) == [
        ("prepare_next", "nf4", 4, WAITING_BYTES, RESIDENT)
    ]


def test_where_cards_are_grouped_otherwise_no_host_is_made_ahead(monkeypatch):
    here = [{"CPU": 8.0, "GPU": 2.0}]
    assert asked(monkeypatch, here, [phase("fp16", cards=2), phase("nf4")], 0) == []


def test_on_a_processor_the_first_loads_at_once_and_the_next_if_it_fits(monkeypatch):
    phases = [phase("fp16", gpu=False), phase("nf4", gpu=False)]
    assert asked(monkeypatch, [{"CPU": 2.0}], phases, 0) == [
        ("host_for", "n0", (), "fp16", RESIDENT),
        ("prepare_next", "nf4", 4, 5, RESIDENT),
    ]
    assert asked(monkeypatch, [{"CPU": 2.0}, {"CPU": 2.0}], phases, 0) == []
    assert asked(monkeypatch, [{}, {"CPU": 2.0}], phases, 1) == [
        ("host_for", "n1", (), "nf4", RESIDENT)
    ]  # a head without cores


def test_hosts_made_ahead_hold_the_base_as_their_phase_does(monkeypatch):
    streamed = Offload(layers=4)
    cards, one_core = [{"CPU": 8.0, "GPU": 1.0}], [{"CPU": 2.0}]
    phases = [phase("fp16", places=2, offload=streamed), phase("fp16", places=2)]
    assert [call[-1] for call in asked(monkeypatch, cards, phases, 0)] == [streamed, RESIDENT]
    assert [call[-1] for call in asked(monkeypatch, cards, phases[::-1], 0)] == [RESIDENT, streamed]
    on_cpu = [phase("nf4", gpu=False, offload=streamed), phase("nf4", gpu=False)]
    assert [call[-1] for call in asked(monkeypatch, one_core, on_cpu, 0)] == [streamed, RESIDENT]


def test_cards_are_named_as_ray_names_them():
    assert card_names(2, None) == card_names(2, "") == ["0", "1"]
    assert card_names(2, "3,5") == ["3", "5"]
    assert card_names(1, "3,5") == ["3"]


class Told:
    """A keeper and its hosts, whose replies are there at once; a host that is an error does not reply."""

    def __init__(self, *of_hosts: Any) -> None:
        self.known: list[Stage] = []
        self.of_hosts = of_hosts

    def __getattr__(self, name: str) -> Any:
        replies = {
            "stages": lambda: tuple(self.known),
            "hosts": lambda: [
                SimpleNamespace(stages=SimpleNamespace(remote=lambda one=one: one)) for one in self.of_hosts
            ],
            "note_stages": self.known.extend,
        }
        return SimpleNamespace(remote=replies[name])


@pytest.fixture
def replies(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(value: Any, timeout: float) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    monkeypatch.setattr(hosts.ray, "get", get)
    timeline.begin("driver")
    timeline.note("checks", 1.0, 2.0)


@pytest.mark.usefixtures("replies")
def test_the_time_line_has_what_each_host_says_that_still_replies(tmp_path: Path) -> None:
    living, dead = [Stage.whole("host 1", "training", 3.0, 4.0)], hosts.ray.exceptions.RayActorError()
    keep_timeline(Told(dead, living), tmp_path)
    assert [one.name for one in read_timeline(tmp_path)[0]] == ["checks", "training"]


@pytest.mark.usefixtures("replies")
def test_a_study_that_breaks_leaves_its_time_line(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), timeline_kept(Told(TimeoutError()), tmp_path):
        raise KeyboardInterrupt
    assert [one.name for one in read_timeline(tmp_path)[0]] == ["checks"]
