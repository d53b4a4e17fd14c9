"""`python -m study watch DIR`: shows the live table of a study that another process runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console

from analysis.load import load_study
from analysis.wording import count_statuses
from study.output import resume_command, say
from study.progress.live_file import Live, read_live
from study.progress.live_table import POLL_SECONDS, LiveTable
from study.progress.study_progress import StudyProgress
from study.records.directory_lock import driver_has_died
from study.records.layout import LIVE_FILE, is_there, study_file
from study.records.record import TrialRecord
from study.records.store import concluded
from study.reporting.summary import ending_text
from trainables.protocol import ResidentStatus

REPORT_FILE = "report.html"


class NoNewsError(Exception):
    """The driver has written nothing since it was last asked."""


def watch(
    directory: Path,
    show: Callable[[str], None] = say,
    console: Console | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Shows a running study until its driver ends, then how the study stands and the command that continues it.

    A driver that was killed is noticed on its own machine; of one elsewhere the table says since when it was silent.
    Raises ConfigError for what is no study's directory.
    """
    study_file(directory)
    live = read_live(directory)
    if live is None and is_there(directory / LIVE_FILE):
        show(f"{directory / LIVE_FILE} is not what a running study writes, so its trials at work cannot be shown.")
    if live is not None and not driver_has_died(directory):
        study = load_study(directory)
        show(f"{study.name}: {count_statuses(study.records)} so far, {sum(live.left.values())} to come")
        _follow(directory, live, show, console, pause)
    show(ending_text(load_study(directory), directory / REPORT_FILE))
    if not concluded(directory):
        show(f"It is not running, and did not come to its end. Continue it with: {resume_command(directory)}")


def _follow(
    directory: Path, live: Live, show: Callable[[str], None], console: Console | None, pause: Callable[[float], None]
) -> None:
    study = load_study(directory)
    known = {record.trial_id for record in study.records}
    with LiveTable(StudyProgress(live.left, study.objectives), _News(directory).ask, show, console) as table:
        word: Live | None = live
        while word is not None and not driver_has_died(directory):
            for trial_id, config in word.configs.items():
                table.note_started(trial_id, config)
            pause(POLL_SECONDS)
            word = read_live(directory)
            for record in _fresh(directory, known):
                table.note_record(record)


def _fresh(directory: Path, known: set[str]) -> list[TrialRecord]:
    """The records of trials that have ended since; they are known from now on."""
    found = [record for record in load_study(directory).records if record.trial_id not in known]
    known |= {record.trial_id for record in found}
    return found


class _News:
    """The driver's statuses, each once, so that the table notices a silent driver."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._number = 0

    def ask(self) -> Mapping[str, ResidentStatus]:
        """What trials at work are doing. Raises NoNewsError where nothing new was written."""
        live = read_live(self._directory)
        if live is None or live.number == self._number:
            raise NoNewsError
        self._number = live.number
        return live.statuses
