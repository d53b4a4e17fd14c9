"""The search as Ray Tune sees it: suggests configurations, and tells the search how their trials ended."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from study.records.objectives import Objective, objective_values
from study.run.admission import Admission
from study.run.recorder import StopReason, outcome_of
from study.search.study_search import Proposal, StudySearch


def identity(proposal: Proposal) -> dict[str, Any]:
    """Returns what every trial's config holds: the trial's name, and its configuration's values."""
    return {"trial_id": proposal.trial_id, "config": proposal.config.to_dict()}


class TuneSearcher(Searcher):  # type: ignore[misc]
    """Gives Tune the trials of one precision, with `num_samples=-1`: it says itself when there are no more.

    At most `places` suggestions are out at a time, so that each is proposed with all results there are. `first` goes
    out before anything new is asked for. A suggestion is what `trial_config` makes of a proposal, its `identity` among
    it; `stop_reason` says why a scheduler has stopped a trial. All that must outlive the driver is in the search's
    database.
    """

    def __init__(
        self,
        search: StudySearch | Admission,
        *,
        precision: str,
        objectives: Sequence[Objective],
        places: int,
        first: Sequence[Proposal] = (),
        trial_config: Callable[[Proposal], dict[str, Any]] = identity,
        stop_reason: StopReason = lambda trial_id: None,
    ) -> None:
        super().__init__()
        self._search = search
        self._precision = precision
        self._objectives = tuple(objectives)
        self._places = places
        self._first = deque(first)
        self._trial_config = trial_config
        self._stop_reason = stop_reason
        self._live: dict[str, str] = {}  # our trials' names, by Tune's

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Returns the next trial's config; None while all places are taken, FINISHED when the search has no more."""
        if len(self._live) >= self._places:
            return None
        proposal = self._first.popleft() if self._first else self._search.ask(self._precision)
        if proposal is None:
            return str(Searcher.FINISHED)
        self._live[trial_id] = proposal.trial_id
        return self._trial_config(proposal)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells the search how a trial ended: as its last result says, stopped, or else that it failed."""
        name = self._live.pop(trial_id, None)
        if name is None:
            return  # it has been told
        if error:
            self._search.tell(name, "failed", None, "the trial's process failed for good")
            return
        outcome = outcome_of(result or {}, self._stop_reason(name))
        if outcome is None:
            self._search.tell(name, "failed", None, "the trial ended without an outcome")
            return
        measured = outcome["measurements"]
        values = objective_values(measured, self._objectives)
        ended = result if result and "outcome" in result else {"record_status": "stopped", **outcome}
        self._search.tell(name, ended["record_status"], values, ended.get("reason"), measured.get("train_steps"))

    def save(self, checkpoint_path: str) -> None:
        """Writes which of Tune's trials are which of ours; everything else is in the database."""
        Path(checkpoint_path).write_text(json.dumps({"live": self._live}), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Reads what `save` has written: those trials are out, and none of them is suggested again."""
        self._live = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))["live"]
        self._first = deque(proposal for proposal in self._first if proposal.trial_id not in self._live.values())
