"""Estimates the time left of a study, from the work seen done and the time it took.

Time that passes is counted for the work that was seen done at its end: a step of a pack, a measurement alone, a trial's
end. So the cost of a kind of work is its cost for the whole study, however many trials share it: seconds counted for it
over units seen done. The units left of each kind, at that cost, are the estimated time left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from trainables.protocol import ResidentStatus

Work = Literal["loading", "measuring", "training", "finishing"]
Cost = tuple[str, Work]  # of a precision's units of work
KINDS: tuple[Work, ...] = ("loading", "measuring", "training", "finishing")
_WORK_OF_STAGE: dict[str, Work] = {
    "loading": "loading", "measuring": "measuring", "training": "training", "evaluating": "training",
    "finishing": "finishing", "ended": "finishing",
}  # fmt: skip
_AFTER_MEASURING = ("training", "finishing")


@dataclass(frozen=True)
class Remaining:
    """Estimated seconds left; a lower bound where not `complete`, since some kind of work was never seen done."""

    seconds: float
    complete: bool


@dataclass
class _Seen:
    """The last word on a trial at work."""

    precision: str
    work: Work
    fraction: float  # of its training


class Pace:
    """The cost of a study's work, by precision: base models load one after another, their trials run together."""

    def __init__(self, trials: Mapping[str, int]) -> None:
        """`trials` are to run, by precision in their order; time begins with the first `advance`."""
        self._trials = dict(trials)
        self._ended: defaultdict[str, int] = defaultdict(int)
        self._loaded: set[str] = set()
        self._seen: dict[str, _Seen] = {}
        self._seconds: defaultdict[Cost, float] = defaultdict(float)
        self._units: defaultdict[Cost, float] = defaultdict(float)
        self._open_seconds = 0.0  # since work was last seen done
        self._now: float | None = None

    def advance(self, now: float) -> None:
        """Moves time on to `now`, in seconds of any clock; a clock that is set back changes nothing."""
        before, self._now = self._now, now if self._now is None else max(now, self._now)
        self._open_seconds += self._now - (self._now if before is None else before)

    def current_precision(self) -> str | None:
        """The first precision with trials that have not ended; None at the end."""
        return next((name for name, count in self._trials.items() if self._ended[name] < count), None)

    def note(self, statuses: Sequence[tuple[str, ResidentStatus]]) -> None:
        """Takes in what trials, each of a precision, are doing at this moment."""
        waited_for = self._waited_for()
        done = [cost for precision, status in statuses for cost in self._note_one(precision, status)]
        self._close(done or ([waited_for] if waited_for and self._seen else []))

    def note_end(self, precision: str, trial_id: str, complete: bool) -> None:
        """Takes in that a trial is over; only one that is complete has done all of its work."""
        before = self._seen.pop(trial_id, None) or _Seen(precision, "measuring", 0.0)
        self._note_loaded(precision)
        self._ended[precision] += 1
        self._close([(precision, before.work)])
        if complete:
            self._units[precision, "measuring"] += before.work in ("loading", "measuring")
            self._units[precision, "training"] += 1.0 - before.fraction
            self._units[precision, "finishing"] += 1

    def remaining(self) -> Remaining | None:
        """The estimated time left; None before any training was seen, 0 at the end."""
        left = {(name, kind): self._left(name, kind) for name in self._trials for kind in KINDS}
        if any(left.values()) and not any(self._units[name, "training"] for name in self._trials):
            return None
        spent = self._spent()
        costs = {key: self._cost(*key, spent) for key, units in left.items() if units > 0}
        seconds = sum(left[key] * cost for key, (cost, _) in costs.items())
        return Remaining(seconds, all(known for _, known in costs.values()))

    def _note_one(self, precision: str, status: ResidentStatus) -> list[Cost]:
        """The work that a trial has done since the last word on it, counted as units where it advanced."""
        self._note_loaded(precision)
        work, fraction = _WORK_OF_STAGE[status.stage], _fraction(status)
        before = self._seen.get(status.trial_id)
        self._seen[status.trial_id] = _Seen(precision, work, fraction)
        if work in _AFTER_MEASURING and (before is None or before.work not in _AFTER_MEASURING):
            self._units[precision, "measuring"] += 1
        if before is None:  # what it has brought along, from a checkpoint, was done at another time
            return []
        gained = max(0.0, fraction - before.fraction)
        self._units[precision, "training"] += gained
        done: set[Work] = ({before.work} if work != before.work else set()) | ({"training"} if gained else set())
        return [(precision, kind) for kind in sorted(done)]

    def _waited_for(self) -> Cost | None:
        """What is under way while no trial is at work: a base model loads, or the next trials begin."""
        precision = self.current_precision()
        if self._seen or precision is None:
            return None
        return precision, "measuring" if precision in self._loaded else "loading"

    def _close(self, done: Sequence[Cost]) -> None:
        """Counts the open time for the work that was done in it."""
        for cost in done:
            self._seconds[cost] += self._open_seconds / len(done)
        if done:
            self._open_seconds = 0.0

    def _spent(self) -> Mapping[Cost, float]:
        """The seconds by kind of work; open ones count for what is under way."""
        waited_for = self._waited_for()
        under_way = [waited_for] if waited_for else [(seen.precision, seen.work) for seen in self._seen.values()]
        spent = defaultdict(float, self._seconds)
        for cost in under_way:
            spent[cost] += self._open_seconds / len(under_way)
        return spent

    def _note_loaded(self, precision: str) -> None:
        if precision not in self._loaded:
            self._loaded.add(precision)
            self._units[precision, "loading"] += 1

    def _left(self, precision: str, kind: Work) -> float:
        trials = max(0, self._trials[precision] - self._ended[precision])
        here = [seen for seen in self._seen.values() if seen.precision == precision]
        if kind == "loading":
            return float(trials > 0 and precision not in self._loaded)
        if kind == "measuring":
            return float(max(0, trials - sum(seen.work in _AFTER_MEASURING for seen in here)))
        if kind == "training":
            return max(0.0, trials - sum(seen.fraction for seen in here))
        return float(trials)

    def _cost(self, precision: str, kind: Work, spent: Mapping[Cost, float]) -> tuple[float, bool]:
        """Seconds for a unit, and whether they were seen at this precision; else what others needed, or nothing."""
        if self._units[precision, kind]:
            return spent[precision, kind] / self._units[precision, kind], True
        units = sum(self._units[name, kind] for name in self._trials)
        seconds = sum(spent[name, kind] for name in self._trials if self._units[name, kind])
        return (seconds / units if units else 0.0), False


def _fraction(status: ResidentStatus) -> float:
    """How much of its training a trial has done, from 0 to 1."""
    if status.stage in ("finishing", "ended"):
        return 1.0
    return min(1.0, max(0.0, status.step / status.total_steps)) if status.total_steps else 0.0
