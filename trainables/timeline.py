"""Records where the time of a process goes: named stages with their begin and end, bounded in number.

One process has one time line, as it has one log: `timeline`. Mark what a process does wherever it is done:

    from trainables.timeline import timeline

    with timeline.stage("imports"):
        import torch
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

DRIVER = "driver"  # the process of the command
FIRST_LINE = "first line"  # the moment when the command's user first reads something
PART = " / "  # between a stage's name and that of a part of it
MOST_WHOLE = 100  # stages of one process that are kept whole; later ones are summed by name
MOST_NAMES = 50  # of those sums; later names are summed as `OTHER`
OTHER = "other"
LONGEST_START_SECONDS = 10.0  # of an interpreter
JOINED_SECONDS = 0.25  # between two stretches of one kind of work that are shown as one


@dataclass(frozen=True)
class Stage:
    """A stretch of a process' time, in seconds since the epoch by its machine's clock.

    The clocks of a cluster's machines may differ, so stages of different machines compare only as well as those do. Of
    `times` stretches merged into one, `began` is the first's, `ended` the last's, and `seconds` their sum.
    """

    process: str
    name: str  # `base model`, or of a part of it, `base model / reading`
    began: float
    ended: float
    seconds: float
    times: int = 1

    @classmethod
    def whole(cls, process: str, name: str, began: float, ended: float) -> Stage:
        """Returns one uninterrupted stretch; one that seems to end before it begins takes no time."""
        ended = max(began, ended)
        return cls(process, name, began, ended, ended - began)

    @property
    def is_part(self) -> bool:
        """Whether another stage of the same process contains it."""
        return PART in self.name


def merged(one: Stage, other: Stage) -> Stage:
    """Returns two stages of one process and name as one; their seconds add up, to no more than from begin to end."""
    began, ended = min(one.began, other.began), max(one.ended, other.ended)
    seconds = min(ended - began, one.seconds + other.seconds)
    return Stage(one.process, one.name, began, ended, seconds, one.times + other.times)


class Timeline:
    """The stages of one process, and those that were taken from others; safe to use from several threads.

    A study of days keeps its beginning whole and sums the rest: after `MOST_WHOLE` stages, each name has one more.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = threading.local()
        self.begin(DRIVER)

    def begin(self, process: str, from_start: bool = False) -> None:
        """Names the process and forgets what was recorded; `from_start` counts what went before in this process."""
        with self._lock:
            self._process = process
            self._whole: list[Stage] = []
            self._sums: dict[str, Stage] = {}
            self._taken: dict[str, tuple[Stage, ...]] = {}
            self._marks: set[str] = set()
            self._changes = 0
        if from_start:
            self.note("interpreter", interpreter_began(), time.time())

    @contextmanager
    def stage(self, name: str, joins: bool = False) -> Iterator[None]:
        """Records what is done inside, however it ends; inside another stage of the thread, as a part of that.

        `joins` extends the stage before, where it has the same name and ended just now: of a kind of work that comes in
        many short stretches.
        """
        outer: str = getattr(self._open, "name", "")
        self._open.name = f"{outer}{PART}{name}" if outer else name
        began = time.monotonic()
        try:
            yield
        finally:
            full, self._open.name = self._open.name, outer
            ended = time.time()
            self._add(full, ended - (time.monotonic() - began), ended, joins)

    def note(self, name: str, began: float, ended: float) -> None:
        """Records a stage under its full name, from and to in seconds since the epoch."""
        self._add(name, began, ended, joins=False)

    def mark(self, name: str) -> None:
        """Records the first time that something happens, as a stage that takes no time."""
        if name not in self._marks:
            self._marks.add(name)
            now = time.time()
            self.note(name, now, now)

    def take(self, stages: Sequence[Stage]) -> None:
        """Takes in the stages of other processes, in place of what was taken of those before."""
        by_process: dict[str, tuple[Stage, ...]] = {}
        for one in stages:
            by_process[one.process] = (*by_process.get(one.process, ()), one)
        with self._lock:
            self._taken.update(by_process)

    def stages(self) -> tuple[Stage, ...]:
        """Returns all stages, in the order in which they began."""
        with self._lock:
            taken = [one for stages in self._taken.values() for one in stages]
            found = [*self._whole, *self._sums.values(), *taken]
        return tuple(sorted(found, key=lambda one: one.began))

    @property
    def changes(self) -> int:
        """How often something was recorded: who has sent the stages on need not send the same again."""
        return self._changes

    def _add(self, name: str, began: float, ended: float, joins: bool) -> None:
        with self._lock:
            self._changes += 1
            new = Stage.whole(self._process, name, began, ended)
            before = self._before(name) if joins else None
            if before is not None and began - self._whole[before].ended <= JOINED_SECONDS:
                self._whole[before] = merged(self._whole[before], new)
            elif len(self._whole) < MOST_WHOLE:
                self._whole.append(new)
            else:
                self._sum(new)

    def _before(self, name: str) -> int | None:
        """The place of the last whole stage on the same level, where it has this name."""
        level = [place for place, one in enumerate(self._whole) if outer_of(one.name) == outer_of(name)]
        return level[-1] if level and self._whole[level[-1]].name == name else None

    def _sum(self, new: Stage) -> None:
        name = new.name if new.name in self._sums or len(self._sums) < MOST_NAMES else OTHER
        new = Stage(new.process, name, new.began, new.ended, new.seconds, new.times)
        self._sums[name] = merged(self._sums[name], new) if name in self._sums else new


def host_process(name: str) -> str:
    """Returns what the process of a host is called in a time line."""
    return f"host {name}"


def outer_of(name: str) -> str:
    """Returns the name of the stage that one is a part of; an empty text where it is none's."""
    return name.rpartition(PART)[0]


def interpreter_began() -> float:
    """Returns when Python began in this process, in seconds since the epoch.

    A shell may have been the process before (`sh -c "a && python b"` ends as python): where it is older than any start
    of an interpreter, the time that the processor has given it counts in place of its age.
    """
    began, now = process_began(), time.time()
    return began if now - began < LONGEST_START_SECONDS else now - time.process_time()


def process_began() -> float:
    """Returns when this process was started, in seconds since the epoch; to a hundredth of a second on Linux."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        ticks = int(fields[19])  # since the machine's start: field 22 of proc(5), counted after the name
        return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError, AttributeError):
        import psutil  # here and not above: it knows other systems, to a second

        return min(time.time(), float(psutil.Process().create_time()))


timeline = Timeline()
