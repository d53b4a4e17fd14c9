"""Where a host's time goes. (pure, no torch)"""

from __future__ import annotations

from collections import defaultdict


class HostClock:
    """Seconds of work by phase, counted from the first pack's first step; what is in no phase was spent waiting."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._started: float | None = None

    def note(self, phase: str, began: float, ended: float) -> None:
        """Takes in a unit of work, between two readings of one monotonic clock."""
        if self._started is None and phase == "training":
            self._started = began
        if self._started is not None:
            self._seconds[phase] += ended - began

    def seconds(self, now: float) -> dict[str, float]:
        """Seconds by phase, `waiting`, and their sum `all`; empty before the first pack has started."""
        if self._started is None:
            return {}
        total = now - self._started
        return {**self._seconds, "waiting": max(0.0, total - sum(self._seconds.values())), "all": total}
