"""A study's own charts in the dashboard: its trials by status, and the hypervolume of its front so far (RAY)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from analysis.pareto import front_document
from study.records.objectives import Objective
from study.records.record import TrialRecord
from trainables.actors.ray_gauges import RayGauges
from trainables.gauges import study_samples


class StudyCharts:
    """Shown anew with each record that comes."""

    def __init__(self, study: str, records: Iterable[TrialRecord], objectives: Sequence[Objective]) -> None:
        self._objectives = objectives
        self._records = list(records)  # kept, since reading them anew at every end would take ever longer
        self._gauges = RayGauges(study)

    def note(self, record: TrialRecord) -> None:
        """A trial has ended."""
        self._records.append(record)
        covered = front_document(self._records, self._objectives)["hypervolume"]
        self._gauges.set(study_samples([one.status for one in self._records], covered))
