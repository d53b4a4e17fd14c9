"""Which hosts the keeper makes and when, with hosts that are names and a machine of known memory."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainables.actors import host_keeper
from trainables.actors.host_keeper import MOST_TRIALS_TOLD, HostKeeper
from trainables.actors.host_pool import Device, Host
from trainables.protocol import ResidentStatus
from trainables.timeline import Stage

GIB = 2**30


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> Any:
    made: list[str] = []
    waiting: list[str] = []

    def start(host: Host) -> str:
        made.append(f"{host.precision} {len(made)}")
        if host.waits:
            waiting.append(made[-1])
        return made[-1]

    one = HostKeeper(SimpleNamespace(), "nowhere", False, 2)  # type: ignore[arg-type]
    killed: list[str] = []
    monkeypatch.setattr(one, "_start", start)
    monkeypatch.setattr(host_keeper.ray, "kill", killed.append)
    monkeypatch.setattr(host_keeper.psutil, "virtual_memory", lambda: SimpleNamespace(available=4 * GIB))
    return SimpleNamespace(made=made, waiting=waiting, killed=killed, keeper=one)


def note(keeper: HostKeeper, **stages: str) -> None:
    keeper.note_statuses([ResidentStatus(name, stage, 0, 4) for name, stage in stages.items()], "h", {}, {})  # type: ignore[arg-type]


def test_the_next_phases_host_is_made_once_no_trial_is_to_come_or_measured(keeper: Any) -> None:
    first = keeper.keeper.host_for("n", (), "bf16")
    keeper.keeper.prepare_next("nf4", 2, GIB)
    for stages in ({"a": "measuring"}, {"a": "training"}, {"a": "training", "b": "loading"}, {"b": "measuring"}):
        note(keeper.keeper, **stages)
        assert keeper.made == [first]
    note(keeper.keeper, b="training")
    note(keeper.keeper, b="training")
    assert keeper.made == [first, "nf4 1"]
    assert keeper.waiting == []  # it loads beside the first
    keeper.keeper.end_hosts()
    assert keeper.killed == [first]
    assert keeper.keeper.host_for("n", (), "nf4") == "nf4 1"
    assert keeper.keeper.host_for("n", (), "nf4") == "nf4 1"
    assert keeper.keeper.host_for("n", (), "nf4", dead="nf4 1") == "nf4 2"


def test_each_cards_next_host_is_made_to_wait_and_has_a_successor_where_it_could_not_load(keeper: Any) -> None:
    cards = [keeper.keeper.host_for("n", (card,), "fp16") for card in "01"]
    keeper.keeper.prepare_next("nf4", 1, GIB)
    note(keeper.keeper, a="training")
    assert keeper.waiting == ["nf4 2", "nf4 3"]
    keeper.keeper.end_hosts()
    assert keeper.killed == cards
    assert [keeper.keeper.host_for("n", (card,), "nf4") for card in "10"] == ["nf4 3", "nf4 2"]
    assert keeper.keeper.loads_anew("nf4 2")  # the card was not empty yet
    assert keeper.keeper.host_for("n", ("0",), "nf4") == "nf4 4"


def test_a_first_host_starts_beside_the_trials_and_one_that_nobody_wants_ends_with_the_phase(keeper: Any) -> None:
    for card, waits in (("0", True), ("1", False), ("2", False)):
        keeper.keeper.prepare("n", (card,), "fp16", waits)
    assert keeper.waiting == ["fp16 0"]
    assert keeper.keeper.host_for("n", ("1",), "fp16") == "fp16 1"
    keeper.keeper.prepare("n", ("1",), "fp16", False)  # it is there
    keeper.keeper.prepare_next("nf4", 1, GIB)
    note(keeper.keeper, a="training")
    assert keeper.killed == ["fp16 0", "fp16 2"]
    assert keeper.made[3:] == ["nf4 3"]


def test_at_a_phases_end_what_was_prepared_for_it_ends_and_what_waits_for_the_next_stays(keeper: Any) -> None:
    keeper.keeper.prepare("n", ("0",), "fp16", False)
    keeper.keeper.prepare("n", ("1",), "fp16", False)
    keeper.keeper.host_for("n", ("0",), "fp16")
    keeper.keeper.end_hosts()
    assert keeper.killed == ["fp16 0", "fp16 1"]
    keeper.keeper.host_for("n", ("0",), "nf4")
    keeper.keeper.prepare_next("bf16", 1, GIB)
    note(keeper.keeper, a="training")
    keeper.keeper.end_hosts()
    assert keeper.killed[2:] == ["nf4 2"]
    assert keeper.keeper.host_for("n", ("0",), "bf16") == "bf16 3"


def test_a_next_phase_that_was_never_due_is_forgotten_with_its_phase(keeper: Any) -> None:
    keeper.keeper.host_for("n", ("0",), "fp16")
    keeper.keeper.prepare_next("nf4", 9, GIB)  # nine trials never join: some were refused
    keeper.keeper.end_hosts()
    keeper.keeper.host_for("n", ("0",), "nf4")
    note(keeper.keeper, **{f"t{number}": "training" for number in range(9)})
    assert keeper.made == ["fp16 0", "nf4 1"]


def test_a_waiting_host_that_its_phase_did_not_want_ends_with_it(keeper: Any) -> None:
    keeper.keeper.host_for("n", ("0",), "fp16")
    keeper.keeper.prepare_next("nf4", 1, GIB)
    note(keeper.keeper, a="training")
    keeper.keeper.end_hosts()
    assert keeper.killed == ["fp16 0"]
    keeper.keeper.end_hosts()  # no trial of that phase has asked
    assert keeper.killed == ["fp16 0", "nf4 1"]


def test_what_a_node_must_hold_is_counted_for_the_fullest_one(keeper: Any) -> None:
    """4 GiB are free: 1.5 times 1 GiB for each of two cards of one node, not for all three of the cluster."""
    for node, card in (("m", "0"), ("n", "0"), ("n", "1")):
        keeper.keeper.host_for(node, (card,), "fp16")
    keeper.keeper.prepare_next("nf4", 1, GIB)
    note(keeper.keeper, a="training")
    assert len(keeper.waiting) == 3


def test_no_host_is_made_ahead_where_both_bases_would_not_fit(keeper: Any) -> None:
    keeper.keeper.host_for("n", (), "bf16")
    keeper.keeper.prepare_next("fp32", 1, 3 * GIB)  # 1.5 times that is more than is free
    note(keeper.keeper, a="training")
    note(keeper.keeper, a="finishing")
    assert keeper.made == ["bf16 0"]
    keeper.keeper.end_hosts()
    assert keeper.keeper.host_for("n", (), "fp32") == "fp32 1"


def test_a_host_made_ahead_that_could_not_load_has_a_successor_and_another_has_none(keeper: Any) -> None:
    first = keeper.keeper.host_for("n", (), "bf16")
    keeper.keeper.prepare_next("nf4", 1, GIB)
    note(keeper.keeper, a="training")
    assert not keeper.keeper.loads_anew(first)
    keeper.keeper.end_hosts()
    ahead = keeper.keeper.host_for("n", (), "nf4")
    assert [keeper.keeper.loads_anew(ahead) for _ in range(2)] == [True, True]  # for each trial that asks
    assert keeper.killed == [first, ahead]
    successor = keeper.keeper.host_for("n", (), "nf4")
    assert successor != ahead
    assert keeper.keeper.loads_anew(ahead)
    assert not keeper.keeper.loads_anew(successor)


def test_another_precision_on_a_device_ends_the_host_there(keeper: Any) -> None:
    first = keeper.keeper.host_for("n", ("0",), "fp16")
    assert keeper.keeper.host_for("n", ("0",), "fp16") == first
    assert keeper.keeper.host_for("n", ("0",), "nf4") != first
    assert keeper.killed == [first]


def test_a_host_that_could_not_be_started_is_tried_again(keeper: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(host: Host) -> str:
        raise RuntimeError("no such node")

    with monkeypatch.context() as broken:
        broken.setattr(keeper.keeper, "_start", fail)
        with pytest.raises(RuntimeError, match="no such node"):
            keeper.keeper.host_for("n", (), "bf16")
    assert keeper.keeper.hosts() == []  # asked where a study is stopped: nothing is started then
    assert keeper.made == []
    assert keeper.keeper.host_for("n", (), "bf16") == "bf16 0"
    assert keeper.keeper.hosts() == ["bf16 0"]
    assert keeper.killed == []


def test_a_cards_host_sees_its_cards_alone_and_takes_no_share_of_them() -> None:
    node = "ab" * 28
    on_cards, on_cpu = Host(1, Device(node, ("2", "3")), "nf4"), Host(2, Device(node), "nf4")
    options = host_keeper.host_options(on_cards)
    assert (options["num_cpus"], options["num_gpus"], options["max_restarts"]) == (0, 0, 0)
    assert "runtime_env" not in options  # it takes a process that Ray has begun already
    assert options["scheduling_strategy"].node_id == node
    assert host_keeper.host_environment(on_cards) == {"CUDA_VISIBLE_DEVICES": "2,3"}
    assert host_keeper.host_environment(on_cpu) == {"OMP_WAIT_POLICY": "PASSIVE"}


def test_a_hosts_word_is_kept_and_an_adapters_files_are_written_whole(tmp_path: Path) -> None:
    one = HostKeeper(SimpleNamespace(), str(tmp_path), True, 2)  # type: ignore[arg-type]
    status = ResidentStatus("a", "training", 3, 4)
    one.note_statuses([status], "1 nf4 on cpu of n", {"training": 2.0, "all": 4.0}, {})
    assert one.statuses() == {"a": status}
    for content in (b"first", b"second"):
        one.keep_adapter("a", {"adapter_config.json": content})
    (file,) = (tmp_path / "adapters" / "a").iterdir()
    assert (file.name, file.read_bytes()) == ("adapter_config.json", b"second")


def test_a_hosts_time_begins_when_it_was_asked_for_and_the_newest_it_says_counts() -> None:
    one = HostKeeper(SimpleNamespace(), "nowhere", False, 2)  # type: ignore[arg-type]
    one._asked["host 1"] = 5.0
    imports, training = Stage.whole("host 1", "imports", 7.0, 8.0), Stage.whole("host 1", "training", 8.0, 9.0)
    for told in ([imports], [imports, training]):
        one.note_stages(told)
    assert [(stage.name, stage.began, stage.ended) for stage in one.stages()] == [
        ("starting", 5.0, 7.0),
        ("imports", 7.0, 8.0),
        ("training", 8.0, 9.0),
    ]
    assert one.stages()[0].process == "host 1"


def test_only_the_first_trials_tell_how_they_began() -> None:
    one = HostKeeper(SimpleNamespace(), "nowhere", False, 2)  # type: ignore[arg-type]
    for number in range(2 * MOST_TRIALS_TOLD):
        one.note_trial_stages([Stage.whole(f"trial {number}", "joining", number, number + 1.0)])
    assert len(one.stages()) == MOST_TRIALS_TOLD
