"""Which hosts there are: decisions in tables, and any sequence of them against a list of all hosts ever made."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trainables.actors.host_pool import MEMORY_MARGIN, Change, Device, Host, HostPool, NextPhase
from trainables.memory.offload import RESIDENT, Offload

CPU, CARD, OTHER_CARD, FAR_CARD = Device("n"), Device("n", ("0",)), Device("n", ("1",)), Device("m", ("0",))
DEVICES = (CPU, CARD, OTHER_CARD, FAR_CARD)
PLENTY = 10**9
STREAMED = Offload(layers=2, embedding=True)
HELD = st.sampled_from([(name, offload) for name in ("fp16", "nf4") for offload in (RESIDENT, STREAMED)])
NOTHING = Change()


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (Host(3, Device("1a2b3c4d5e6f", ("0",)), "nf4"), "3 nf4 on card 0 of 1a2b3c4d"),
        (Host(1, Device("n", ("2", "3")), "fp16"), "1 fp16 on card 2,3 of n"),
        (Host(12, Device("n"), "bf16", waits=True), "12 bf16 on cpu of n"),
    ],
)
def test_a_hosts_name_says_what_it_is(host: Host, name: str) -> None:
    assert host.name == name


@pytest.mark.parametrize(
    ("precision", "dead", "number", "ended"),
    [
        ("fp16", None, 1, []),  # it is there
        ("fp16", "another", 1, []),  # one that died before it was made
        ("fp16", "there", 2, [1]),
        ("nf4", None, 2, [1]),
        ("nf4", "there", 2, [1]),
    ],
)
def test_what_a_trial_gets_where_a_host_is(precision: str, dead: str | None, number: int, ended: list[int]) -> None:
    pool = HostPool()
    there, change = pool.take(CARD, "fp16")
    assert change == Change(started=(there,))
    died = {None: None, "there": there, "another": Host(9, CARD, "fp16")}[dead]
    host, change = pool.take(CARD, precision, died)
    assert (host.number, host.device, host.precision) == (number, CARD, precision)
    assert [one.number for one in change.ended] == ended
    assert change.started == ((host,) if number == 2 else ())
    assert pool.in_use == (host,)


def test_a_host_made_ahead_is_taken_in_its_precision_and_once() -> None:
    pool = HostPool()
    (ahead,) = pool.prepare(CARD, "fp16", waits=True).started
    assert (ahead.waits, ahead.ahead) == (True, True)
    assert pool.prepare(CARD, "fp16", waits=True) == NOTHING
    assert pool.in_use == ()
    other, _ = pool.take(CARD, "nf4")
    assert other != ahead
    assert pool.take(CARD, "fp16") == (ahead, Change(ended=(other,)))
    assert pool.prepare(CARD, "fp16", waits=False) == NOTHING
    successor, change = pool.take(CARD, "fp16", dead=ahead)
    assert change == Change((ahead,), (successor,))
    assert not successor.ahead


def test_hosts_of_unlike_offload_are_unlike_hosts() -> None:
    pool = HostPool()
    resident, _ = pool.take(CARD, "fp16")
    (ahead,) = pool.prepare(OTHER_CARD, "fp16", waits=False, offload=STREAMED).started
    assert pool.take(OTHER_CARD, "fp16", offload=STREAMED) == (ahead, NOTHING)
    streamed, change = pool.take(CARD, "fp16", offload=STREAMED)
    assert change == Change((resident,), (streamed,))
    assert (resident.offload, streamed.offload) == (RESIDENT, STREAMED)
    pool.plan_next(NextPhase("fp16", 0, 1, RESIDENT))
    assert {host.offload for host in pool.start_next(PLENTY).started} == {RESIDENT}


@pytest.mark.parametrize(
    ("trials", "measuring", "due"), [(1, False, False), (2, True, False), (2, False, True), (3, False, True)]
)
def test_the_next_phases_hosts_are_due_when_nobody_is_measured_or_to_come(
    trials: int, measuring: bool, due: bool
) -> None:
    pool = HostPool()
    assert not pool.next_is_due(trials, measuring)  # no phase was planned
    pool.plan_next(NextPhase("nf4", 2, 1))
    assert pool.next_is_due(trials, measuring) is due
    pool.start_next(PLENTY)
    assert not pool.next_is_due(trials, measuring)
    pool.plan_next(NextPhase("nf4", 2, 1))
    pool.end_phase()
    assert not pool.next_is_due(trials, measuring)  # it was this phase's


@pytest.mark.parametrize(("devices", "on_a_node"), [([FAR_CARD, CARD], 1), ([FAR_CARD, CARD, OTHER_CARD], 2)])
def test_the_next_hosts_need_the_memory_of_the_fullest_node(devices: list[Device], on_a_node: int) -> None:
    needed = round(MEMORY_MARGIN * 100 * on_a_node)
    for available, made in ((needed, 0), (needed + 1, len(devices))):
        pool = HostPool()
        for device in devices:
            pool.take(device, "fp16")
        pool.plan_next(NextPhase("nf4", 0, 100))
        change = pool.start_next(available)
        assert [host.device for host in change.started] == devices[:made]
        assert all(host.waits and host.ahead and host.precision == "nf4" for host in change.started)


def test_a_cpus_next_host_loads_at_once() -> None:
    pool = HostPool()
    pool.take(CPU, "bf16")
    pool.plan_next(NextPhase("nf4", 0, 1))
    (host,) = pool.start_next(PLENTY).started
    assert not host.waits


def test_what_a_phase_leaves_behind() -> None:
    pool = HostPool()
    unwanted = pool.prepare(OTHER_CARD, "fp16", waits=False).started
    used, _ = pool.take(CARD, "fp16")
    pool.plan_next(NextPhase("nf4", 0, 1))
    change = pool.start_next(PLENTY)
    assert change.ended == unwanted
    assert pool.end_phase() == Change(ended=(used,))
    assert pool.take(CARD, "nf4") == (change.started[0], NOTHING)
    assert pool.end_phase() == Change(ended=change.started)
    assert pool.end_phase() == NOTHING


def test_only_a_host_made_ahead_is_replaced_where_it_could_not_load() -> None:
    pool = HostPool()
    first, _ = pool.take(CARD, "fp16")
    assert pool.end_unloaded(first) == NOTHING
    pool.prepare(OTHER_CARD, "fp16", waits=False)
    ahead, _ = pool.take(OTHER_CARD, "fp16")
    assert pool.end_unloaded(ahead) == Change(ended=(ahead,))
    assert pool.end_unloaded(ahead) == NOTHING
    assert pool.in_use == (first,)


# -- any sequence of decisions -----------------------------------------------------------------------------------------


Held = tuple[str, Offload]  # how the base model is held: hosts are told apart by it


@dataclass
class Made:
    """A host of the naive model: everything is looked up in the list of all of them."""

    host: Host
    phase: int
    asked_for: bool
    living: bool = True

    @property
    def held(self) -> Held:
        return self.host.precision, self.host.offload


class AnySequence(RuleBasedStateMachine):
    """The pool against a list of all hosts ever made."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = HostPool()
        self.made: list[Made] = []
        self.phase = 0
        self.planned: NextPhase | None = None

    def living(self, asked_for: bool) -> list[Made]:
        return [one for one in self.made if one.living and one.asked_for is asked_for]

    def expect(self, change: Change, ended: list[Made], started: list[Made]) -> None:
        """The change ends just these hosts and starts just these, which are then known."""
        assert sorted(host.number for host in change.ended) == sorted(one.host.number for one in ended)
        assert list(change.started) == [one.host for one in started]
        for one in ended:
            assert one.living  # nothing ends twice
            one.living = False
        self.made += started

    def new(self, device: Device, held: Held, phase: int, waits: bool, ahead: bool, number: int = 1) -> Made:
        precision, offload = held
        return Made(Host(len(self.made) + number, device, precision, waits, ahead, offload), phase, asked_for=not ahead)

    @rule(device=st.sampled_from(DEVICES), held=HELD, data=st.data())
    def take(self, device: Device, held: Held, data: st.DataObject) -> None:
        dead = data.draw(st.sampled_from([None, *(one.host for one in self.made)]))
        there = [one for one in self.living(True) if one.host.device == device]
        keeps = [one for one in there if one.held == held and one.host != dead]
        ready = [one for one in self.living(False) if (one.host.device, one.held) == (device, held)]
        precision, offload = held
        host, change = self.pool.take(device, precision, dead, offload)
        fresh = [] if keeps or ready else [self.new(device, held, self.phase, False, False)]
        self.expect(change, [] if keeps else there, fresh)
        (expected,) = keeps or ready or fresh
        assert host == expected.host
        expected.asked_for = True

    @rule(device=st.sampled_from(DEVICES), held=HELD, waits=st.booleans())
    def prepare(self, device: Device, held: Held, waits: bool) -> None:
        known = any(one.host.device == device for one in self.living(True))
        known |= any((one.host.device, one.held) == (device, held) for one in self.living(False))
        fresh = [] if known else [self.new(device, held, self.phase, waits, True)]
        precision, offload = held
        self.expect(self.pool.prepare(device, precision, waits, offload), [], fresh)

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def fail_to_load(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.made))
        ends = one.living and one.asked_for and one.host.ahead
        self.expect(self.pool.end_unloaded(one.host), [one] if ends else [], [])

    @rule(held=HELD, after=st.integers(0, 2), needed=st.integers(1, 9))
    def plan_next(self, held: Held, after: int, needed: int) -> None:
        precision, offload = held
        self.planned = NextPhase(precision, after, needed, offload)
        self.pool.plan_next(self.planned)

    @rule(trials=st.integers(0, 3), measuring=st.booleans(), available=st.integers(0, 40))
    def hear_of_trials(self, trials: int, measuring: bool, available: int) -> None:
        planned = self.planned
        due = planned is not None and trials >= planned.after_trials and not measuring
        assert self.pool.next_is_due(trials, measuring) is due
        if planned is None or not due:
            return
        self.planned = None
        unwanted = [one for one in self.living(False) if one.phase <= self.phase]
        held = (planned.precision, planned.offload)
        later = {one.host.device for one in self.living(False) if one.phase > self.phase and one.held == held}
        devices = [device for device in self.devices_in_use() if device not in later]
        nodes = [device.node_id for device in self.devices_in_use()]
        room = all(available > 1.5 * planned.needed_bytes * nodes.count(node) for node in nodes)
        fresh = [
            self.new(device, held, self.phase + 1, bool(device.gpu_ids), True, number)
            for number, device in enumerate(devices if room else [], 1)
        ]
        self.expect(self.pool.start_next(available), unwanted, fresh)

    @rule()
    def end_phase(self) -> None:
        ended = self.living(True) + [one for one in self.living(False) if one.phase <= self.phase]
        self.expect(self.pool.end_phase(), ended, [])
        self.phase, self.planned = self.phase + 1, None

    def devices_in_use(self) -> list[Device]:
        """In the pool's own order, which no result depends on."""
        return [host.device for host in self.pool.in_use]

    @invariant()
    def each_device_has_one_host_at_most(self) -> None:
        assert {host.number for host in self.pool.in_use} == {one.host.number for one in self.living(True)}
        assert len(set(self.devices_in_use())) == len(self.pool.in_use)
        assert len({one.host.number for one in self.made}) == len(self.made)


TestAnySequence = AnySequence.TestCase
TestAnySequence.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
