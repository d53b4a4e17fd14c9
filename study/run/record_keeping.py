"""What follows on a trial's record: stored with its prediction, shown in table and charts, learned from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from analysis.pareto import front_document
from study.errors import StoreError
from study.output import resume_command
from study.plan.forecast import Forecast
from study.plan.measured_footprints import keep_footprints
from study.progress.live_table import LiveTable
from study.records.layout import adapter_place
from study.records.objectives import Objective
from study.records.record import TrialRecord
from study.records.store import ResultsStore
from trainables.actors.ray_gauges import RayGauges
from trainables.gauges import study_samples
from trainables.protocol import ADAPTER_UNWRITTEN


class Keeping:
    """Appends records to the store; where that fails, for example on a full disk, the study must stop."""

    def __init__(
        self,
        store: ResultsStore,
        table: LiveTable,
        forecast: Forecast | None = None,
        chart: Callable[[TrialRecord], None] = lambda record: None,
    ) -> None:
        self._store = store
        self._table = table
        self._chart = chart
        self.forecast = forecast
        self._kept: list[TrialRecord] = []
        self.error: StoreError | None = None

    def append(self, record: TrialRecord) -> None:
        """Keeps and shows a record, with what was predicted.

        Tune swallows what its callbacks raise, so an error is noted in `error`, for `raise_any`. A trained trial whose
        adapter could not be written is no failed one: the study stops, as where a record cannot be kept, and `resume`
        continues the trial from its checkpoint.
        """
        if record.status == "failed" and ADAPTER_UNWRITTEN in (record.reason or ""):
            self.error = _unwritten(record, self._store.directory)
            return
        if self.forecast:
            record = replace(record, predictions=self.forecast.predictions(record.config))
            self.forecast.note(record)
        try:
            if self._store.append(record):
                self._kept.append(record)
                self._table.note_record(record)
                self._chart(record)
        except StoreError as error:
            self.error = error

    def keep_footprints(self) -> None:
        """Lets the models of time and memory learn from what has been measured."""
        if self.forecast:
            keep_footprints(self._kept, self.forecast)

    def raise_any(self) -> None:
        """Raises StoreError where a record could not be kept."""
        if self.error:
            raise self.error


def _unwritten(record: TrialRecord, directory: Path) -> StoreError:
    """The error of a trained trial whose adapter could not be written."""
    remedy = "Free some space, or give yourself the right to write; then continue"
    found = " ".join(str(record.reason).partition(ADAPTER_UNWRITTEN)[2].split()).lstrip(": ")
    place = directory / adapter_place(record.trial_id)
    return StoreError(f"{place} must be writable", found, f"{remedy}: {resume_command(directory)}")


class StudyCharts:
    """A study's own charts in Ray's dashboard: its trials by status, and the hypervolume of its front so far."""

    def __init__(self, study: str, records: Iterable[TrialRecord], objectives: Sequence[Objective]) -> None:
        self._objectives = objectives
        self._records = list(records)  # kept, since reading them anew at every end would take ever longer
        self._gauges = RayGauges(study)

    def note(self, record: TrialRecord) -> None:
        """Draws the charts anew with the record of a trial that has ended."""
        self._records.append(record)
        covered = front_document(self._records, self._objectives)["hypervolume"]
        self._gauges.set(study_samples([one.status for one in self._records], covered))
