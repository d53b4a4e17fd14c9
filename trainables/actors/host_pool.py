"""Decides which hosts there are: one for each device in use, and those made ahead of need.

It starts and ends nothing itself: every decision is a `Change` for the caller to carry out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from trainables.memory.offload import RESIDENT, Offload

MEMORY_MARGIN = 1.5  # times what the next phase's hosts take must be free for them to be made ahead


class Device(NamedTuple):
    """The cards of one node that hold a base model together, or the node's CPU where there are none."""

    node_id: str
    gpu_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Host:
    """A host that was decided on; no two have the same number."""

    number: int
    device: Device
    precision: str
    waits: bool = False  # whether it touches its device only once a trial joins
    ahead: bool = False  # whether it was decided on before a trial asked for it
    offload: Offload = RESIDENT  # what of its trainings waits in host memory

    @property
    def name(self) -> str:
        """For people: `3 nf4 on card 0 of 1a2b3c4d`."""
        node_id, gpu_ids = self.device
        where = f"card {','.join(gpu_ids)}" if gpu_ids else "cpu"
        return f"{self.number} {self.precision} on {where} of {node_id[:8]}"

    def serves(self, precision: str, offload: Offload) -> bool:
        """Whether trials that need the base model so can join it."""
        return (self.precision, self.offload) == (precision, offload)


@dataclass(frozen=True)
class Change:
    """What the caller is to do: end some hosts, then start others."""

    ended: tuple[Host, ...] = ()
    started: tuple[Host, ...] = ()


@dataclass(frozen=True)
class NextPhase:
    """The phase to come: its hosts are made ahead, one for each device in use, once all of this holds."""

    precision: str
    after_trials: int  # have been heard of
    needed_bytes: int  # of the machine's memory, by each host
    offload: Offload = RESIDENT


class _Wanted(NamedTuple):
    """What hosts are told apart by, of those made ahead."""

    device: Device
    precision: str
    offload: Offload


class HostPool:
    """Every device's host and the hosts made ahead, through one phase after another."""

    def __init__(self) -> None:
        self._in_use: dict[Device, Host] = {}
        self._ahead: dict[_Wanted, tuple[int, Host]] = {}  # -> the phase it is for, host
        self._made = 0
        self._phase = 0
        self._next: NextPhase | None = None

    @property
    def in_use(self) -> tuple[Host, ...]:
        """The hosts that trials have asked for."""
        return tuple(self._in_use.values())

    def take(
        self, device: Device, precision: str, dead: Host | None = None, offload: Offload = RESIDENT
    ) -> tuple[Host, Change]:
        """A device's host for a trial: the one there, one made ahead, or a new one.

        A host of another precision or offload ends, and so does the one there if it is `dead`: a trial has seen it die.
        """
        there = self._in_use.get(device)
        if there is not None and there.serves(precision, offload) and there != dead:
            return there, Change()
        ended = () if there is None else (there,)
        wanted = _Wanted(device, precision, offload)
        _, host = self._ahead.pop(wanted, (self._phase, None))
        started: tuple[Host, ...] = ()
        if host is None:
            host = self._made_for(wanted)
            started = (host,)
        self._in_use[device] = host
        return host, Change(ended, started)

    def prepare(self, device: Device, precision: str, waits: bool, offload: Offload = RESIDENT) -> Change:
        """Makes a host ahead for the phase that begins, where the device has none; `waits`: until a trial joins."""
        if device in self._in_use:
            return Change()
        return Change(started=self._made_ahead(self._phase, _Wanted(device, precision, offload), waits))

    def end_unloaded(self, host: Host) -> Change:
        """Ends a host that could not load its base, if it was made ahead: the next one may find more room.

        What was on the device before it may still have been in memory when it tried.
        """
        if not host.ahead or self._in_use.get(host.device) != host:
            return Change()
        del self._in_use[host.device]
        return Change(ended=(host,))

    def plan_next(self, following: NextPhase) -> None:
        """Has the hosts of the phase to come made ahead as soon as `next_is_due`."""
        self._next = following

    def next_is_due(self, trials: int, measuring: bool) -> bool:
        """Whether the hosts of the phase to come are to be made now that so many trials have been heard of.

        Costs are measured alone, so nothing loads while a trial is `measuring` or still to come.
        """
        return self._next is not None and trials >= self._next.after_trials and not measuring

    def start_next(self, available_bytes: int) -> Change:
        """Makes the hosts of the phase to come ahead, and ends those of this phase that no trial has asked for.

        On a CPU they load at once; on cards they wait, since two bases there could be too much for what trains. None
        are made where `available_bytes`, of the machine's memory, would not hold those of one node as well.
        """
        following, self._next = self._next, None
        if following is None:
            return Change()
        ended = self._end_unwanted()
        on_a_node = max(Counter(device.node_id for device in self._in_use).values(), default=0)
        if available_bytes <= MEMORY_MARGIN * following.needed_bytes * on_a_node:
            return Change(ended)
        started = [
            host
            for device in self._in_use
            for host in self._made_ahead(
                self._phase + 1, _Wanted(device, following.precision, following.offload), bool(device.gpu_ids)
            )
        ]
        return Change(ended, tuple(started))

    def end_phase(self) -> Change:
        """Ends all hosts but those made ahead for the next phase, so that its bases find the devices empty."""
        ended = self.in_use + self._end_unwanted()
        self._in_use.clear()
        self._phase += 1
        self._next = None
        return Change(ended)

    def _end_unwanted(self) -> tuple[Host, ...]:
        """Forgets the hosts made ahead for this phase that no trial has asked for."""
        unwanted = {key: host for key, (phase, host) in self._ahead.items() if phase <= self._phase}
        for key in unwanted:
            del self._ahead[key]
        return tuple(unwanted.values())

    def _made_ahead(self, phase: int, wanted: _Wanted, waits: bool) -> tuple[Host, ...]:
        """A new host for a phase; none where one like it was made ahead already."""
        if wanted in self._ahead:
            return ()
        host = self._made_for(wanted, waits, ahead=True)
        self._ahead[wanted] = (phase, host)
        return (host,)

    def _made_for(self, wanted: _Wanted, waits: bool = False, ahead: bool = False) -> Host:
        self._made += 1
        return Host(self._made, wanted.device, wanted.precision, waits, ahead, wanted.offload)
