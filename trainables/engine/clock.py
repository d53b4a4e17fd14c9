"""Counts where a host's time goes: to each kind of work, or to waiting."""

from __future__ import annotations

from collections import defaultdict


class HostClock:
    """Seconds by kind of work, counted from the first pack's first step; all other time was spent waiting."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._started: float | None = None

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
