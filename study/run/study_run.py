"""A study in its directory, with its search, its results so far, and what is left of it to run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from study.cluster.object_store import stored_checkpoint
from study.cluster.ray_start import RayStart
from study.config.study_config import StudyConfig
from study.plan.preflight import Preflight
from study.records.layout import is_confirmation
from study.records.store import ResultsStore
from study.run.resumption.basis import Basis
from study.run.resumption.checkpoints import latest_checkpoint

if TYPE_CHECKING:  # Optuna takes its time, in which Ray may start
    from study.search.study_search import StudySearch


@dataclass(frozen=True)
class StudyRun:
    """A study that this process drives: it owns the directory's results."""

    config: StudyConfig
    directory: Path
    search: StudySearch
    store: ResultsStore
    found: Preflight | None = None  # of model and data; None where nothing was checked
    basis: Basis | None = None  # what trials depend on; None where nothing was checked
    ray: RayStart | None = None  # that may be starting already; None where it is to be started when trials run

    @property
    def url(self) -> str | None:
        """Its place in an object store, where its storage is one; a confirmation's is in its study's."""
        storage, name = self.config.storage, self.directory.name
        if is_confirmation(self.directory):
            name = f"{self.directory.parent.name}/{name}"
        return f"{storage}/{name}" if isinstance(storage, str) else None

    def checkpoint(self, trial_id: str) -> str | None:
        """Returns the folder, or URL, of a trial's newest checkpoint; None where it has none.

        One in an object store is read by the trial's host, which refuses it where its basis is another: the trial then
        begins anew.
        """
        if self.url:
            return stored_checkpoint(self.url, trial_id)
        return latest_checkpoint(self.directory, trial_id, self.basis)

    def remaining(self) -> dict[str, int]:
        """Returns how many trials of each precision are still to run, unfinished ones included."""
        ours = [record for record in self.store.records() if record.trial_id in self.search.trial_ids]
        ended: Counter[str] = Counter(record.config.precision for record in ours)
        total = {precision: self.search.count(precision) for precision in self.config.space.precisions()}
        return {precision: max(0, count - ended[precision]) for precision, count in total.items()}
