"""Which configurations a study tries: Optuna's ask and tell, kept in the study's `optuna.db`. (no torch, no ray)"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from search_spaces.parameters import SearchSpace
from search_spaces.trial_config import TrialConfig
from study.config.search_sections import SearchAlgorithm
from study.config.study_config import StudyConfig
from study.records.objectives import Objective, objective_values
from study.records.record import STATUSES, TrialRecord
from study.search.database import STATES, SearchDatabase, config_of, ending_attributes, known_before
from study.search.known_cost import MemoryOf, known_cost_of
from study.search.planned_trials import PlannedTrial, planned_trials
from study.search.sampling import Sampling, fixed_trial


@dataclass(frozen=True)
class Proposal:
    """A configuration to try, under its trial's name."""

    trial_id: str
    config: TrialConfig


@dataclass(frozen=True)
class Earlier:
    """A trial of an earlier study, as a search is told of it."""

    source: str  # study directory and trial
    record: TrialRecord


class StudySearch:
    """A search over one Optuna study: asks for configurations of one precision at a time, and is told how they ended.

    A grid asks for its configurations, in their order or shuffled, once for each of `seeds`; the other algorithms deal
    `trials` out evenly over the precisions and use the first seed. Trials are named `t000`, `t001`, … in the order of
    the grid, or precision after precision: the names depend neither on the order in which precisions run nor on how
    many trials run side by side. A trial is in the database, whole, from the moment it is asked for: one that was not
    told before its driver died is among the `unfinished` when the search is opened again, and what is asked for next
    depends on the database alone. Raises StoreError where the database cannot be opened, or holds another search.
    """

    def __init__(
        self,
        database: Path,
        *,
        space: SearchSpace,
        algorithm: SearchAlgorithm,
        trials: int | None,
        seed: int,
        seeds: Sequence[int],
        objectives: Sequence[Objective],
        name: str = "study",
        try_first: Sequence[TrialConfig] = (),
        memory_of: MemoryOf | None = None,
        memory_limit: float | None = None,
        shuffled: bool = False,
    ) -> None:
        """`try_first` are the first configurations of their precisions, and count among the trials of a search.

        In place of one that an earlier study knows, another is tried.

        `memory_of` predicts a configuration's peak memory in bytes, for an algorithm that makes use of it; what comes
        to `memory_limit` is not proposed by it while anything else is left. A grid that is `shuffled` is not asked for
        in its own order but in one drawn by `seed`: the first trials then stand for all.
        """
        if algorithm != "grid" and trials is None:
            raise ValueError(f"trials must say how many configurations {algorithm} tries; it is None")
        self._objectives = tuple(objectives)
        directions = tuple(objective.direction for objective in objectives)
        known = known_cost_of(objectives, memory_of, memory_limit) if memory_of else None
        self._sampling = Sampling(space, algorithm, trials or 0, seed, seeds[0], directions, known)
        self._planned = planned_trials(self._sampling, seeds, try_first, shuffled)
        self._unrecorded: set[str] = set()
        self._configs: dict[int, TrialConfig] = {}  # by Optuna's number: read once, since every proposal looks at all
        metrics = [objective.metric for objective in objectives]
        plan: dict[str, Any] = {
            "space": space.to_mapping(),
            "algorithm": algorithm,
            "trials": trials,
            "seed": seed,
            "seeds": [*seeds],
        }
        if try_first:
            plan["try_first"] = [config.to_dict() for config in try_first]
        self._database = SearchDatabase(database, name, directions, metrics, plan)

    def count(self, precision: str) -> int:
        """How many trials of that precision the search consists of, those asked for already included.

        Fewer than were planned where earlier studies know so much of a space that not so many are left to try.
        """
        planned, history = self._planned[precision], self._database.trials()
        known = known_before(history)
        open_ = [one.trial_id for one in planned if one.config is None or one.config in known]
        every = self._sampling.every(precision) if open_ else None
        if every is None:
            return len(planned)
        asked = {trial.user_attrs.get("trial_id") for trial in history}
        taken = self._taken(history) | {one.config for one in planned}
        left = sum(config not in taken for config in every)
        return len(planned) - len(open_) + min(len(open_), len(asked.intersection(open_)) + left)

    def ask(self, precision: str, wanted: Callable[[TrialConfig], bool] = lambda config: True) -> Proposal | None:
        """The next configuration of that precision; None where all have been asked for.

        Of a grid's, which are known from the start, only those that are `wanted`.
        """
        history = self._database.trials()
        asked = {trial.user_attrs.get("trial_id") for trial in history}
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
        """How a trial ended: its record's status, and what is known of its objective values in their own directions.

        Only complete trials with all values finite count as complete for Optuna; `stopped` ones are pruned, all others
        failed, with status and reason as attributes. A pruned one's values are those after `train_steps` optimizer
        steps, its fidelity; they are attributes too, since no sampler may take them for final ones. Does nothing for a
        trial that was told before. Raises ValueError for a trial that was not asked for and for an unknown status.
        """
        if status not in STATUSES:
            raise ValueError(f"status must be one of {', '.join(STATUSES)}; it is {status!r}")
        trial = self._trial(trial_id)
        self._unrecorded.discard(trial_id)
        if trial.state.is_finished():
            return
        state = STATES.get(status, TrialState.FAIL)
        if state == TrialState.COMPLETE and not self._usable(values):
            metrics = ", ".join(objective.metric for objective in self._objectives)
            state, reason = TrialState.FAIL, reason or f"not every objective ({metrics}) has a finite value"
        told = values if state == TrialState.COMPLETE else None
        self._database.finish(trial, state, told, ending_attributes(status, reason, train_steps, values))

    def unfinished(self) -> list[Proposal]:
        """What was asked for and has not ended, in the order of the trials' names: it goes first after a kill."""
        running = [
            trial
            for trial in self._asked()
            if not trial.state.is_finished() or trial.user_attrs["trial_id"] in self._unrecorded
        ]
        return sorted(map(_proposal, running), key=lambda proposal: proposal.trial_id)

    def proposals(self) -> list[Proposal]:
        """Everything that was asked for, in that order."""
        return [_proposal(trial) for trial in self._asked()]

    def reconcile(self, records: Iterable[TrialRecord]) -> None:
        """Agrees with the results store, after a kill between the two: each trial then ends exactly once.

        A trial with a record counts as told, also where the database has lost it; one that was told but has no record
        is among the unfinished again, and keeps what the search was told first.
        """
        asked = {trial.user_attrs["trial_id"]: trial for trial in self._asked()}
        self._unrecorded = {trial_id for trial_id, trial in asked.items() if trial.state.is_finished()}
        for record in records:
            if record.trial_id not in asked:
                self._add(fixed_trial(self._sampling.space, record.config), record.trial_id, record.config)
            values = objective_values(record.measurements, self._objectives)
            self.tell(record.trial_id, record.status, values, record.reason, record.measurements["train_steps"])

    def know(self, earlier: Iterable[Earlier]) -> None:
        """Takes in what earlier studies know: as ended trials without a name, whose configurations are not asked for
        again. What is known already changes nothing.
        """
        known = {trial.user_attrs.get("earlier") for trial in self._database.trials()}
        for one in earlier:
            if one.source not in known:
                self._database.add(self._earlier_trial(one))

    def _earlier_trial(self, earlier: Earlier) -> FrozenTrial:
        record = earlier.record
        config = replace(record.config, seed=self._sampling.trial_seed)
        values = objective_values(record.measurements, self._objectives)
        state = STATES.get(record.status, TrialState.FAIL)
        parameters = fixed_trial(self._sampling.space, config)
        attributes: dict[str, Any] = {"earlier": earlier.source, "config": config.to_dict()}
        return optuna.trial.create_trial(
            state=state,
            values=values if state == TrialState.COMPLETE else None,
            params=parameters.params,
            distributions=parameters.distributions,
            user_attrs={
                **attributes,
                **ending_attributes(record.status, record.reason, record.measurements["train_steps"], values),
            },
        )

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
        """What was asked for, or is known from earlier studies."""
        for trial in history:
            if trial.number not in self._configs and "config" in trial.user_attrs:
                self._configs[trial.number] = config_of(trial)
        return frozenset(self._configs.values())

    def _add(self, trial: FrozenTrial, trial_id: str, config: TrialConfig) -> None:
        trial.user_attrs = {"trial_id": trial_id, "config": config.to_dict(), "seed": config.seed}
        self._database.add(trial)

    def _asked(self) -> list[FrozenTrial]:
        return [trial for trial in self._database.trials() if "trial_id" in trial.user_attrs]

    def _trial(self, trial_id: str) -> FrozenTrial:
        for trial in self._asked():
            if trial.user_attrs["trial_id"] == trial_id:
                return trial
        raise ValueError(f"trial_id must be one that was asked for; it is {trial_id!r}")


def _proposal(trial: FrozenTrial) -> Proposal:
    return Proposal(trial.user_attrs["trial_id"], config_of(trial))


def open_search(config: StudyConfig, database: Path, memory_of: MemoryOf) -> StudySearch:
    """The study's search in that database; `memory_of` predicts a configuration's peak memory in bytes."""
    settings = config.search
    return StudySearch(
        database,
        space=config.space,
        algorithm=settings.algorithm,
        trials=settings.trials,
        seed=settings.seed,
        seeds=config.seeds,
        objectives=config.objectives,
        name=config.name,
        try_first=settings.try_first,
        memory_of=memory_of if settings.algorithm == "gp" else None,
        memory_limit=config.trial.hardware.memory_limit_bytes,
        # Those who come first are judged by few: if all of them have the least learning rate, too many go on.
        shuffled=config.early_stopping.algorithm != "none",
    )
