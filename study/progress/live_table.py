"""Shows a running study: redraws the live table on a terminal, else prints a line every few seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from search_spaces.trial_config import TrialConfig
from study.progress import view
from study.progress.study_progress import StudyProgress
from study.records.record import TrialRecord
from trainables.protocol import ResidentStatus

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
LINE_SECONDS = 15.0  # between two lines where there is no terminal
REFRESHES_PER_SECOND = 2
END_SECONDS = 12.0  # for a poll under way: it must not outlive Ray, which ends a process that asks it after its end


class LiveTable:
    """Shows a study's progress while it is entered.

    `statuses` is called every second in a thread of its own, so that it may be slow or fail; `show` prints a line.
    """

    def __init__(
        self,
        progress: StudyProgress,
        statuses: Callable[[], Mapping[str, ResidentStatus]],
        show: Callable[[str], None],
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        poll_seconds: float = POLL_SECONDS,
        line_seconds: float = LINE_SECONDS,
    ) -> None:
        self._progress = progress
        self._ask = statuses
        self._show = show
        self._clock = clock
        self._poll_seconds, self._line_seconds = poll_seconds, line_seconds
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="live table", daemon=True)
        self._next_line = 0.0
        console = console or Console()
        self._live = self._live_on(console) if console.is_terminal else None

    def __enter__(self) -> LiveTable:
        with self._lock:
            self._progress.advance(self._clock())
            self._next_line = self._clock() + self._line_seconds
        self._thread.start()
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._live:
            self._live.stop()
        self._thread.join(END_SECONDS)

    def note_started(self, trial_id: str, config: TrialConfig) -> None:
        """Takes in that a trial begins."""
        with self._lock:
            self._progress.note_started(trial_id, config)

    def note_record(self, record: TrialRecord) -> None:
        """Takes in that a trial has ended: one line says how, and it leaves the table."""
        with self._lock:
            self._progress.note_record(record, self._clock())
            line = view.ended_line(record, self._progress.trials, len(self._progress.ended))
        self._show(line)

    def _live_on(self, console: Console) -> Live:
        return Live(
            get_renderable=self._table, console=console, refresh_per_second=REFRESHES_PER_SECOND, transient=True
        )

    def _table(self) -> Table:
        with self._lock:
            self._progress.advance(self._clock())
            return view.table(self._progress)

    def _poll(self) -> None:
        while not self._over.is_set():
            self._poll_once()
            self._over.wait(self._poll_seconds)

    def _poll_once(self) -> None:
        try:
            statuses = self._ask()
        except Exception as error:  # whatever it is, the study continues; the view says since when nothing was heard
            log.debug("No statuses of the trials: %s: %s", type(error).__name__, error)
            statuses = None
        with self._lock:
            if statuses is None:
                self._progress.advance(self._clock())
            else:
                self._progress.note_statuses(statuses, self._clock())
            line = self._line_if_due()
        if line and not self._over.is_set():
            self._show(line)

    def _line_if_due(self) -> str | None:
        if self._live or self._clock() < self._next_line:
            return None
        self._next_line = self._clock() + self._line_seconds
        return view.line(self._progress)
