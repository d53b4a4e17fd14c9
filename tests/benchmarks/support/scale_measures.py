"""Samples what a study on a simulated cluster uses, and when its cards are at work."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import psutil

SAMPLE_SECONDS = 2.0
PARTS = {"SimulatedHosts": "simulated hosts", "Keeper": "keeper", "LoraTrial": "trials"}  # by process title


@dataclass(frozen=True)
class Sample:
    """What processes had used at a moment: CPU seconds by part, and the driver's resident bytes."""

    time: float
    cpu_seconds: Mapping[str, float]
    driver_bytes: int
    machine_busy: float  # since the sample before, of all cores


class Watch:
    """Samples this process (the driver) and those under it, in a thread of its own."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _live(self) -> None:
        me = psutil.Process()
        psutil.cpu_percent()
        while not self._over.wait(SAMPLE_SECONDS):
            spent = Counter({"driver": _cpu_seconds(me)})
            for process in me.children(recursive=True):
                try:
                    spent[part_of(process.cmdline())] += _cpu_seconds(process)
                except psutil.Error:
                    continue
            busy = psutil.cpu_percent() / 100
            self.samples.append(Sample(time.time(), dict(spent), me.memory_info().rss, busy))


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def part_of(command: Sequence[str]) -> str:
    """Which part of a study a process under the driver is, by its title."""
    title = " ".join(command)
    return next((part for name, part in PARTS.items() if name in title), "Ray")


@dataclass(frozen=True)
class Times:
    """When cards were at work: pieces of training as (card, begin, end, trial); and the processes that trials had."""

    pieces: Sequence[tuple[str, float, float, str]]
    actors: int = 0  # Tune uses one for trial after trial where it can

    def window(self, places: int) -> tuple[float, float]:
        """From the moment when all places were first taken at once, until the last trial was given out.

        Where they never were, it is empty: both are the latter.
        """
        begins: dict[str, float] = {}
        ends: dict[str, float] = {}
        for _, begin, end, trial in self.pieces:
            begins[trial] = min(begin, begins.get(trial, begin))
            ends[trial] = max(end, ends.get(trial, end))
        last, taken = max(begins.values()), 0
        for moment, change in sorted([*((one, 1) for one in begins.values()), *((one, -1) for one in ends.values())]):
            taken += change
            if taken >= places:
                return moment, last
        return last, last

    def idle_share(self, cards: int, begin: float, end: float) -> float | None:
        """The part of the cards' time between two moments in which nothing trained on them; None for no time."""
        if end <= begin:
            return None
        by_card: dict[str, list[tuple[float, float]]] = {}
        for card, piece_begin, piece_end, _ in self.pieces:
            by_card.setdefault(card, []).append((max(piece_begin, begin), min(piece_end, end)))
        busy = sum(map(covered, by_card.values()))
        return 1 - busy / (cards * (end - begin))

    def waits(self) -> dict[str, dict[str, float]]:
        """Milliseconds that trials waited after a report, and cards of one place for the next trial."""
        after_report: list[float] = []
        between: list[float] = []
        for before, after in pairwise(sorted(self.pieces, key=lambda piece: (piece[0], piece[1]))):
            if before[0] == after[0]:
                (after_report if before[3] == after[3] else between).append(1000 * (after[1] - before[2]))
        found = {"after a report": after_report, "between trials": between}
        return {name: spread(values) for name, values in found.items() if values}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, mean, the 95th of a hundred, and the largest."""
    ordered = sorted(values)
    last = ordered[int(0.95 * (len(ordered) - 1))]
    found = {"median": median(ordered), "mean": sum(ordered) / len(ordered), "95 %": last, "largest": ordered[-1]}
    return {name: round(value, 1) for name, value in found.items()}


def covered(intervals: Sequence[tuple[float, float]]) -> float:
    """How much of a line intervals cover together; empty and reversed ones cover nothing."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def spent_between(samples: Sequence[Sample], begin: float, end: float) -> tuple[dict[str, float], float]:
    """CPU seconds by part between the samples nearest to two moments, and the seconds between these samples."""
    first = min(samples, key=lambda one: abs(one.time - begin))
    last = min(samples, key=lambda one: abs(one.time - end))
    parts = {name: last.cpu_seconds.get(name, 0.0) - first.cpu_seconds.get(name, 0.0) for name in last.cpu_seconds}
    return parts, last.time - first.time


def driver_ms(times: Times, samples: Sequence[Sample], begin: float, end: float) -> float | None:
    """The driver's CPU milliseconds for each result that came between two moments; None where none did."""
    if end <= begin:
        return None
    parts, seconds = spent_between(samples, begin, end)
    results = sum(begin <= piece[2] < end for piece in times.pieces) / (end - begin) * seconds
    return 1000 * parts["driver"] / results if results else None
