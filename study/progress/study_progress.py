"""Keeps where a study stands: trials at work, trials ended, and the estimated time left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from search_spaces.trial_config import TrialConfig
from study.progress.pace import Pace, Remaining
from study.records.objectives import Objective
from study.records.record import TrialRecord
from trainables.protocol import ResidentStatus

ANY_PRECISION = "any"


class StudyProgress:
    """The trials at work, those that have ended, and the pace of both; times are passed in."""

    def __init__(self, trials: int | Mapping[str, int], objectives: Sequence[Objective]) -> None:
        """`trials` are those still to run, by precision in their order where that is known."""
        self._trials = dict(trials) if isinstance(trials, Mapping) else {ANY_PRECISION: trials}
        self.objectives = tuple(objectives)
        self.ended: list[TrialRecord] = []
        self._configs: dict[str, TrialConfig] = {}
        self._statuses: dict[str, ResidentStatus] = {}
        self._pace = Pace(self._trials)
        self._started: float | None = None
        self._now = self._last_word = 0.0

    @property
    def trials(self) -> int:
        """How many trials there are to run."""
        return sum(self._trials.values())

    @property
    def left(self) -> dict[str, int]:
        """How many trials have not ended, by precision where that is known."""
        ended = Counter(self._precision(record.config) for record in self.ended)
        return {precision: max(0, count - ended[precision]) for precision, count in self._trials.items()}

    @property
    def at_work(self) -> tuple[ResidentStatus, ...]:
        """The last status of each trial that has not ended, also where its host has died since; by trial id."""
        return tuple(self._statuses[trial_id] for trial_id in sorted(self._statuses))

    @property
    def adapters_together(self) -> int:
        """The largest pack that trials at work last stepped in; 0 where none is training."""
        return max((one.pack_size for one in self.at_work if one.stage in ("training", "evaluating")), default=0)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return 0.0 if self._started is None else self._now - self._started

    @property
    def silence_seconds(self) -> float:
        """Seconds since anything was heard of the trials."""
        return self._now - self._last_word

    def config(self, trial_id: str) -> TrialConfig | None:
        """The configuration of a trial at work, where it is known."""
        return self._configs.get(trial_id)

    def advance(self, now: float) -> None:
        """Moves time on to `now`, in seconds of any clock."""
        if self._started is None:
            self._started = self._last_word = self._now = now
        self._now = max(now, self._now)
        self._pace.advance(now)

    def note_started(self, trial_id: str, config: TrialConfig) -> None:
        """Takes in that a trial begins."""
        self._configs[trial_id] = config

    def note_statuses(self, statuses: Mapping[str, ResidentStatus], now: float) -> None:
        """Takes in the trials' statuses at time `now`; trials without a new one keep their last."""
        self.advance(now)
        self._last_word = self._now
        over = {record.trial_id for record in self.ended}
        heard = {trial_id: status for trial_id, status in statuses.items() if trial_id not in over}
        self._statuses |= heard
        self._pace.note([(self._precision(self.config(one.trial_id)), one) for one in heard.values()])

    def note_record(self, record: TrialRecord, now: float) -> None:
        """Takes in that a trial has ended, at time `now`."""
        self.advance(now)
        self._statuses.pop(record.trial_id, None)
        self.ended.append(record)
        self._pace.note_end(self._precision(record.config), record.trial_id, record.status == "complete")

    def remaining(self) -> Remaining | None:
        """The estimated time left; None where nothing is known yet."""
        return self._pace.remaining()

    def _precision(self, config: TrialConfig | None) -> str:
        if config is not None and config.precision in self._trials:
            return config.precision
        return self._pace.current_precision() or next(iter(self._trials), ANY_PRECISION)
