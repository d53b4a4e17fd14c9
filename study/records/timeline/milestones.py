"""Derives from a study's stages when it came to what, and where its wall time went."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from trainables.timeline import DRIVER, FIRST_LINE
from trainables.timeline import Stage as Stage  # the analysis takes it from here

AT_WORK = "training and evaluating"
ELSE = "all else"
HOST, TRIALS = "host ", "trials "  # how a host's process, and the driver's stage while trials run, are named
TRAINING = "training"
KIND_OF_HOST_STAGE = {
    TRAINING: AT_WORK,
    "evaluating": AT_WORK,
    "measuring": "measuring costs",
    "testing": "testing, sampling and handing over",
    "sampling": "testing, sampling and handing over",
    "finishing": "testing, sampling and handing over",
}
LOADING = "starting and loading hosts"
BESIDE = "trials starting and waiting"  # while no host does anything
WAITING = "waiting"  # begins the names of stages in which a process does nothing
MOST_KINDS = 24


@dataclass(frozen=True)
class Milestones:
    """When a study came to what, in seconds from its command on; None for what it did not come to."""

    first_line_seconds: float | None
    first_packed_step_seconds: float | None  # until that step begins
    end_seconds: float
    at_work_share: float  # of the wall time, in which at least one host trained or evaluated


def milestones(stages: Sequence[Stage]) -> Milestones:
    """Returns a run's milestones; the command is where its driver began, or the first process where none is known."""
    zero = start_of(stages)
    end = max((one.ended for one in stages), default=zero)
    at_work = time_by_kind(stages).get(AT_WORK, 0.0)
    return Milestones(
        _first(stages, zero, lambda one: one.process == DRIVER and one.name == FIRST_LINE),
        _first(stages, zero, lambda one: is_host(one.process) and one.name == TRAINING),
        end - zero,
        at_work / (end - zero) if end > zero else 0.0,
    )


def host_seconds(stages: Iterable[Stage]) -> dict[str, dict[str, float]]:
    """Returns each host's seconds by kind of work from its first packed step on, with `waiting` and their sum `all`."""
    of_host: dict[str, list[Stage]] = defaultdict(list)
    for one in stages:
        if is_host(one.process) and not one.is_part:
            of_host[one.process.removeprefix(HOST)].append(one)
    return {host: _since_first_step(own) for host, own in of_host.items()}


def _since_first_step(stages: Sequence[Stage]) -> dict[str, float]:
    first = min((one.began for one in stages if one.name == TRAINING), default=None)
    if first is None:
        return {}
    seconds: dict[str, float] = defaultdict(float)
    for one in stages:
        if one.began >= first:
            seconds[one.name] += one.seconds
    wall = max(one.ended for one in stages) - first
    return {**seconds, "waiting": max(0.0, wall - sum(seconds.values())), "all": wall}


def start_of(stages: Sequence[Stage]) -> float:
    """Returns when a run began, in seconds since the epoch: its driver, or the first process where none is known."""
    own = [one.began for one in stages if one.process == DRIVER]
    return min(own or [one.began for one in stages], default=0.0)


def is_at_work(stage: Stage) -> bool:
    """Whether a stage is a host's that trains or evaluates."""
    return is_host(stage.process) and KIND_OF_HOST_STAGE.get(stage.name) == AT_WORK


def is_host(process: str) -> bool:
    """Whether a process of a time line is a host."""
    return process.startswith(HOST)


def time_by_kind(stages: Sequence[Stage]) -> dict[str, float]:
    """Returns the seconds of a run's wall time by kind of work, each moment counted once; they add up to all of it.

    A moment counts as the most useful thing that any process then did: training and evaluating before measuring, that
    before what ends trials, that before loading hosts, that before the driver's own stages, and last that trials run
    of which no host does anything. A sum of many stretches counts as spread evenly from its begin to its end. What no
    process has recorded is `all else`.
    """
    whole = [one for one in stages if not one.is_part]
    zero = start_of(stages)
    kinds = _kinds(whole)
    changes: dict[float, list[tuple[int, float, int]]] = defaultdict(list)  # at a moment: kind, density, stages
    for one in whole:
        kind = kinds.get(_kind(one))
        if kind is not None and one.ended > max(zero, one.began):
            density = one.seconds / (one.ended - one.began)
            changes[max(zero, one.began)].append((kind, density, 1))
            changes[one.ended].append((kind, -density, -1))
    found = _sweep(changes, len(kinds))
    seconds = {kind: found[place] for kind, place in kinds.items() if found[place] > 0}
    wall = max((one.ended for one in stages), default=zero) - zero
    return {**seconds, ELSE: max(0.0, wall - sum(seconds.values()))}


def _sweep(changes: dict[float, list[tuple[int, float, int]]], kinds: int) -> list[float]:
    """The seconds of each kind, earlier kinds first; no moment has more than one second in a second."""
    found, density, open_stages = [0.0] * kinds, [0.0] * kinds, [0] * kinds
    for moment, following in pairwise([*sorted(changes), max(changes, default=0.0)]):
        for kind, more, count in changes[moment]:
            open_stages[kind] += count
            density[kind] = density[kind] + more if open_stages[kind] else 0.0  # no rounding is left over
        left = 1.0
        for kind in range(kinds):
            part = min(left, max(0.0, density[kind]))
            found[kind] += part * (following - moment)
            left -= part
    return found


def _kinds(stages: Iterable[Stage]) -> dict[str, int]:
    """Each kind's rank; the driver's stages follow on the hosts', in the order in which they began."""
    ranked = list(dict.fromkeys([*KIND_OF_HOST_STAGE.values(), LOADING]))
    own = [kind for one in sorted(stages, key=lambda one: one.began) if (kind := _kind(one))]
    told = [kind for kind in dict.fromkeys([*ranked, *own]) if kind != BESIDE][:MOST_KINDS]
    return {kind: rank for rank, kind in enumerate([*told, BESIDE])}


def _kind(stage: Stage) -> str:
    """What a stage counts as; an empty text where it is nothing that anybody waits for by itself."""
    if stage.name.startswith((WAITING, FIRST_LINE)):
        return ""
    if is_host(stage.process):
        return KIND_OF_HOST_STAGE.get(stage.name, LOADING)
    if stage.process != DRIVER:
        return ""
    return BESIDE if stage.name.startswith(TRIALS) else stage.name


def _first(stages: Iterable[Stage], zero: float, holds: Callable[[Stage], bool]) -> float | None:
    return min((one.began - zero for one in stages if holds(one)), default=None)
