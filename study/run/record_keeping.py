"""What becomes of a record: kept with its prediction, shown, and learned from. (no torch, no ray)"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from study.errors import StoreError
from study.plan.forecast import Forecast
from study.plan.measured_footprints import keep_lessons
from study.progress.live_table import LiveTable
from study.records.record import TrialRecord
from study.records.store import ResultsStore


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
        """Keeps and shows a record, with what was predicted. Tune swallows what its callbacks raise, so an error is
        noted here."""
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

    def keep_lessons(self) -> None:
        """Lets the models learn from what has been measured."""
        if self.forecast:
            keep_lessons(self._kept, self.forecast)

    def raise_any(self) -> None:
        """Raises StoreError where a record could not be kept."""
        if self.error:
            raise self.error
