"""Counts where a host's time goes: to each kind of work, or to waiting."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from trainables.timeline import timeline


class HostClock:
    """Seconds by kind of work, counted from the first pack's first step; all other time was spent waiting.

    Each kind of work is a stage of the process' time line too; that begins with the process.
    """

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._started: float | None = None

    @contextmanager
    def at_work(self, work: str) -> Iterator[None]:
        """Counts what is done inside as this kind of work."""
        began = time.monotonic()
        try:
            with timeline.stage(work, joins=True):
                yield
        finally:
            self.note(work, began, time.monotonic())

    def note(self, work: str, began: float, ended: float) -> None:
        """Takes in a unit of work, between two readings of one monotonic clock."""
        if self._started is None and work == "training":
            self._started = began
        if self._started is not None:
            self._seconds[work] += ended - began

    def seconds(self, now: float) -> dict[str, float]:
        """Seconds by kind of work, `waiting`, and their sum `all`; empty before the first pack has started."""
        if self._started is None:
            return {}
        total = now - self._started
        return {**self._seconds, "waiting": max(0.0, total - sum(self._seconds.values())), "all": total}
