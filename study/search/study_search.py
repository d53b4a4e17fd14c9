"""The study's search by ask and tell, kept in `optuna.db`: what is tried next, and how it ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from search_spaces.parameters import SpaceError
from search_spaces.points import parse_point, point_of
from search_spaces.trial_config import TrialConfig
from study.config.study_config import StudyConfig
from study.records.objectives import objective_values
from study.records.record import STATUSES, TrialRecord
from study.search.algorithms import fixed_trial
from study.search.database import SearchDatabase
from study.search.known_cost import MemoryOf
from study.search.planned_trials import PlannedTrial, planned_trials
from study.search.search_task import SearchTask
from study.search.trial_attributes import (
    STATES,
    asked_attributes,
    config_of,
    earlier_attributes,
    ending_attributes,
    known_before,
    source_of,
    trial_id_of,
)


@dataclass(frozen=True)
class Proposal:
    """A configuration to try, under its trial's name."""

    trial_id: str
    config: TrialConfig


@dataclass(frozen=True)
class Earlier:
    """A trial of an earlier study, for `StudySearch.know`."""

    source: str  # study directory and trial
    record: TrialRecord


class StudySearch:
    """Proposes configurations of one precision at a time, and is told how their trials ended.

    Trials are named `t000`, `t001`, … in the order of the grid, or precision after precision: the names depend neither
    on the order in which precisions run nor on how many trials run at the same time. A trial is in the database, whole,
    from the moment it is asked for: if its driver dies before its end is told, it is among the `unfinished` when the
    search is opened again. What is proposed next depends on the database alone. Raises StoreError where the database
    cannot be opened, or holds another search.
    """

    def __init__(self, database: Path, task: SearchTask) -> None:
        self._objectives = task.objectives
        self._sampling = task.sampling()
        self._planned = planned_trials(task)
        self._planned_configs = {one.trial_id: one.config for planned in self._planned.values() for one in planned}
        self._unrecorded: set[str] = set()
        self._configs: dict[int, TrialConfig] = {}  # by Optuna's number: read once, since every proposal needs all
        directions = [objective.direction for objective in task.objectives]
        metrics = [objective.metric for objective in task.objectives]
        self._database = SearchDatabase(database, task.name, directions, metrics, task.to_mapping())

    def count(self, precision: str) -> int:
        """How many trials of that precision the search consists of, including those asked for already.

        Fewer than planned where earlier studies have tried so much of the space that fewer are left.
        """
        planned, history = self._planned[precision], self._database.trials()
        known = known_before(history)
        open_ = [one.trial_id for one in planned if one.config is None or one.config in known]
        every = self._sampling.every(precision) if open_ else None
        if every is None:
            return len(planned)
        asked = {trial_id_of(trial) for trial in history}
        taken = self._taken(history) | {one.config for one in planned}
        left = sum(config not in taken for config in every)
        return len(planned) - len(open_) + min(len(open_), len(asked.intersection(open_)) + left)

    def ask(self, precision: str, wanted: Callable[[TrialConfig], bool] = lambda config: True) -> Proposal | None:
        """The next configuration of that precision; None where all have been asked for.

        Of the configurations that are known from the start, such as a grid's, only those that are `wanted`. In the
        place of one to be tried first that an earlier study has tried, another is proposed.
        """
        history = self._database.trials()
        asked = {trial_id_of(trial) for trial in history}
        for planned in self._planned[precision]:
            if planned.trial_id in asked or (planned.config is not None and not wanted(planned.config)):
                continue
            drawn = self._draw(precision, planned, history)
            if drawn is not None:
                self._add(drawn[0], planned.trial_id, drawn[1])
                return Proposal(planned.trial_id, drawn[1])
            if planned.config is None:  # then nothing is left for the others either
                break
        return None

    def tell(
        self,
        trial_id: str,
        status: str,
        values: Sequence[float] | None,
        reason: str | None = None,
        train_steps: int | None = None,
    ) -> None:
        """Tells how a trial ended: its record's status, and its objective values in their own directions, if known.

        For Optuna a complete trial with finite values is complete, a `stopped` one pruned, any other failed; status and
        reason are attributes. So are the values of a stopped trial, which it had after `train_steps` optimizer steps:
        no sampler may take them for final values. Does nothing for a trial whose end was told before. Raises ValueError
        for a trial that was not asked for and for an unknown status.
        """
        if status not in STATUSES:
            raise ValueError(f"status must be one of {', '.join(STATUSES)}; it is {status!r}")
        self._end(self._trial(trial_id), status, values, reason, train_steps)

    def unfinished(self) -> list[Proposal]:
        """The trials that were asked for and have not ended, sorted by name: after a kill they run first."""
        running = [
            trial for trial in self._asked() if not trial.state.is_finished() or trial_id_of(trial) in self._unrecorded
        ]
        return sorted(map(_proposal, running), key=lambda proposal: proposal.trial_id)

    def proposals(self) -> list[Proposal]:
        """All trials that were asked for, in that order."""
        return [_proposal(trial) for trial in self._asked()]

    def reconcile(self, records: Iterable[TrialRecord]) -> Mapping[str, str]:
        """Brings the search into agreement with the recorded results, so that each trial ends exactly once.

        After a kill, a trial may have a record and no end in the database, or no trial there at all: its end is told
        from the record. A trial that ended in the database and has no record is among the unfinished again; the search
        keeps what it was told first. Returns why records of other configurations than those asked for are not told, by
        trial: these trials are to run again. Records of no trial of this search are passed over.
        """
        asked = {str(trial_id_of(trial)): trial for trial in self._asked()}
        self._unrecorded = {trial_id for trial_id, trial in asked.items() if trial.state.is_finished()}
        wrong: dict[str, str] = {}
        lost: list[FrozenTrial] = []
        for record in (one for one in records if one.trial_id in self.trial_ids):
            there = asked.get(record.trial_id)
            if reason := self._misfit(record, there):
                wrong[record.trial_id] = reason
            elif there is None:
                lost.append(self._ended_trial(record, asked_attributes(record.trial_id, record.config), record.config))
            else:
                values = objective_values(record.measurements, self._objectives)
                self._end(there, record.status, values, record.reason, record.measurements["train_steps"])
        self._database.add_all(lost)
        return wrong

    @property
    def trial_ids(self) -> Collection[str]:
        """The names of all trials that the search consists of."""
        return self._planned_configs.keys()

    @property
    def foreign(self) -> Mapping[int, str]:
        """Why trials of the database are left out, by Optuna's number: something else has added or changed them."""
        self._database.trials()
        return self._database.foreign

    def _misfit(self, record: TrialRecord, asked: FrozenTrial | None) -> str:
        """Why the record cannot be of the trial that was asked for under its name; empty where it can."""
        if asked is not None:
            same = config_of(asked) == record.config
            return "" if same else f"{record.trial_id} was asked for with another configuration"
        if self._planned_configs.get(record.trial_id) == record.config:
            return ""
        try:
            parse_point(self._sampling.space, point_of(record.config), 0)
        except SpaceError as error:
            return f"its configuration is outside the space ({', '.join(fault.key for fault in error.faults)})"
        return ""

    def know(self, earlier: Iterable[Earlier]) -> None:
        """Adds trials of earlier studies as ended ones, whose configurations are not asked for again.

        Those that were added before are left as they are.
        """
        known = {source_of(trial) for trial in self._database.trials()}
        fresh = {one.source: one for one in earlier if one.source not in known}
        self._database.add_all([self._earlier_trial(one) for one in fresh.values()])

    def _earlier_trial(self, earlier: Earlier) -> FrozenTrial:
        config = replace(earlier.record.config, seed=self._sampling.trial_seed)
        return self._ended_trial(earlier.record, earlier_attributes(earlier.source, config), config)

    def _ended_trial(self, record: TrialRecord, attributes: Mapping[str, Any], config: TrialConfig) -> FrozenTrial:
        """A trial of this configuration that has ended as the record says."""
        values = objective_values(record.measurements, self._objectives)
        state, reason = self._state(record.status, values, record.reason)
        parameters = fixed_trial(self._sampling.space, config)
        steps = record.measurements["train_steps"]
        return optuna.trial.create_trial(
            state=state,
            values=values if state == TrialState.COMPLETE else None,
            params=parameters.params,
            distributions=parameters.distributions,
            user_attrs={**attributes, **ending_attributes(record.status, reason, steps, values)},
        )

    def _end(
        self,
        trial: FrozenTrial,
        status: str,
        values: Sequence[float] | None,
        reason: str | None,
        train_steps: int | None,
    ) -> None:
        self._unrecorded.discard(str(trial_id_of(trial)))
        if trial.state.is_finished():
            return
        state, reason = self._state(status, values, reason)
        told = values if state == TrialState.COMPLETE else None
        self._database.finish(trial, state, told, ending_attributes(status, reason, train_steps, values))

    def _state(self, status: str, values: Sequence[float] | None, reason: str | None) -> tuple[TrialState, str | None]:
        """Optuna's state of a trial that ended so, and the reason."""
        state = STATES.get(status, TrialState.FAIL)
        if state == TrialState.COMPLETE and not self._usable(values):
            metrics = ", ".join(objective.metric for objective in self._objectives)
            return TrialState.FAIL, reason or f"not every objective ({metrics}) has a finite value"
        return state, reason

    def _usable(self, values: Sequence[float] | None) -> bool:
        return values is not None and len(values) == len(self._objectives) and all(map(math.isfinite, values))

    def _draw(
        self, precision: str, planned: PlannedTrial, history: Sequence[FrozenTrial]
    ) -> tuple[FrozenTrial, TrialConfig] | None:
        if planned.config is not None and planned.config not in known_before(history):
            return fixed_trial(self._sampling.space, planned.config), planned.config
        taken = self._taken(history).union(one.config for one in self._planned[precision] if one.config)
        return self._sampling.propose(precision, planned.number, history, taken)

    def _taken(self, history: Sequence[FrozenTrial]) -> frozenset[TrialConfig]:
        """The configurations that were asked for, or tried by earlier studies."""
        for trial in history:
            if trial.number not in self._configs and "config" in trial.user_attrs:
                self._configs[trial.number] = config_of(trial)
        return frozenset(self._configs.values())

    def _add(self, trial: FrozenTrial, trial_id: str, config: TrialConfig) -> None:
        trial.user_attrs = asked_attributes(trial_id, config)
        self._database.add(trial)

    def _asked(self) -> list[FrozenTrial]:
        return [trial for trial in self._database.trials() if trial_id_of(trial) is not None]

    def _trial(self, trial_id: str) -> FrozenTrial:
        for trial in self._asked():
            if trial_id_of(trial) == trial_id:
                return trial
        raise ValueError(f"trial_id must be one that was asked for; it is {trial_id!r}")


def _proposal(trial: FrozenTrial) -> Proposal:
    return Proposal(str(trial_id_of(trial)), config_of(trial))


def open_search(config: StudyConfig, database: Path, memory_of: MemoryOf) -> StudySearch:
    """The study's search in that database; `memory_of` predicts a configuration's peak memory in bytes."""
    return StudySearch(database, SearchTask.of(config, memory_of))
