"""Keeps the study's trials in `optuna.db`: one Optuna study, which `optuna-dashboard` shows.

A trial's name, configuration and end are its user attributes, which the functions at the end write and read.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL, text
from sqlalchemy.exc import SQLAlchemyError

from search_spaces.trial_config import TrialConfig
from study.errors import StoreError

STATES = {"complete": TrialState.COMPLETE, "stopped": TrialState.PRUNED}  # Optuna's, by a trial's status; others fail
PLAN = "plan"  # the study's attribute that says what the search was begun with
BUSY_SECONDS = 60.0  # a dashboard that reads may hold the database for a moment
COUNTS = text("SELECT state, COUNT(*) FROM trials WHERE study_id = :study GROUP BY state")


class SearchDatabase:
    """One Optuna study in an SQLite file. Every method raises StoreError where the file cannot be read or written.

    `plan` says what the search consists of, JSON-ready: a database that was begun with another plan is refused. Trials
    are cached in memory, and read again when the file has more trials or more of them have ended: Optuna alone would
    read every running trial again at each call.
    """

    def __init__(
        self, file: Path, name: str, directions: Sequence[str], metrics: Sequence[str], plan: Mapping[str, Any]
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._file = file.resolve()
        self._trials: dict[int, FrozenTrial] = {}  # by number
        url = URL.create("sqlite", database=str(self._file)).render_as_string()
        with self._at_work():
            waiting = {"connect_args": {"timeout": BUSY_SECONDS}}
            self._storage = optuna.storages.RDBStorage(url, engine_kwargs=waiting)
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=name,
                directions=directions,
                sampler=optuna.samplers.RandomSampler(seed=0),  # never used: proposals are drawn from a copy
                load_if_exists=True,
            )
            self._key = self._storage.get_study_id_from_name(name)
            self._begin(metrics, json.loads(json.dumps({**plan, "metrics": metrics, "directions": directions})))

    def trials(self) -> list[FrozenTrial]:
        """All trials that run or have ended, in the order in which they were added; not to be changed."""
        with self._at_work():
            ended = sum(trial.state.is_finished() for trial in self._trials.values())
            if self._counts() != (len(self._trials), ended):  # another copy of this search has written
                there = self._study.get_trials(deepcopy=False)
                self._trials = {trial.number: trial for trial in there if trial.state != TrialState.WAITING}
            return list(self._trials.values())

    def add(self, trial: FrozenTrial) -> None:
        """Adds a trial with its parameters and attributes in one transaction: after a kill it is whole or not there."""
        with self._at_work():
            self._keep(self._storage.create_new_trial(self._key, template_trial=trial))

    def finish(
        self, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None, attributes: Mapping[str, Any]
    ) -> None:
        """Ends a running trial; a complete one has values, in the objectives' own directions."""
        with self._at_work():
            key = self._storage.get_trial_id_from_study_id_trial_number(self._key, trial.number)
            for name, value in attributes.items():  # Optuna takes none after a trial's end
                self._storage.set_trial_user_attr(key, name, value)
            self._study.tell(trial.number, values, state)
            self._keep(key)

    def _counts(self) -> tuple[int, int]:
        """How many trials the file holds, and how many of them have ended; Optuna would read them all to count them."""
        with self._storage.engine.connect() as connection:
            rows = connection.execute(COUNTS, {"study": self._key}).all()
        counts = {TrialState[state]: int(count) for state, count in rows if state != TrialState.WAITING.name}
        return sum(counts.values()), sum(count for state, count in counts.items() if state.is_finished())

    def _keep(self, key: int) -> None:
        kept = self._storage.get_trial(key)
        self._trials[kept.number] = kept

    def _begin(self, metrics: Sequence[str], plan: Mapping[str, Any]) -> None:
        there = self._study.user_attrs.get(PLAN)
        if there is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                self._study.set_metric_names(list(metrics))
            self._study.set_user_attr(PLAN, plan)
        elif there != plan:
            changed = [name for name in plan if there.get(name) != plan[name]]
            raise StoreError(
                f"{self._file} must hold the search that the study file asks for",
                f"it was begun with other {', '.join(changed)}",
                "Restore the study directory's study.yaml, or run the changed study in a new directory.",
            )

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, OptunaError) as error:
            raise StoreError(
                f"{self._file} must be a database that Optuna can read and write",
                " ".join(str(error).split()),
                "Free some space, or give yourself the right to write; put a copy in the place of a damaged file.",
            ) from error


def asked_attributes(trial_id: str, config: TrialConfig) -> dict[str, Any]:
    """What a trial that the search asked for says of itself."""
    return {"trial_id": trial_id, "config": config.to_dict(), "seed": config.seed}


def earlier_attributes(source: str, config: TrialConfig) -> dict[str, Any]:
    """What a trial of an earlier study says of itself: its study directory and name, and its configuration."""
    return {"earlier": source, "config": config.to_dict()}


def ending_attributes(
    status: str, reason: str | None, train_steps: int | None, values: Sequence[float] | None
) -> dict[str, Any]:
    """How a trial ended; a stopped one's objective values with the optimizer steps after which it had them."""
    attributes: dict[str, Any] = {"status": status, "reason": reason}
    if status == "stopped":
        attributes |= {"train_steps": train_steps, "values_so_far": None if values is None else list(values)}
    return attributes


def trial_id_of(trial: FrozenTrial) -> str | None:
    """The name under which the search asked for the trial; None for a trial of an earlier study."""
    found: str | None = trial.user_attrs.get("trial_id")
    return found


def source_of(trial: FrozenTrial) -> str | None:
    """The study directory and name of an earlier study's trial; None for one of this study."""
    found: str | None = trial.user_attrs.get("earlier")
    return found


def config_of(trial: FrozenTrial) -> TrialConfig:
    """The configuration that was asked for, or that an earlier study tried."""
    return TrialConfig.from_dict(trial.user_attrs["config"])


def known_before(history: Iterable[FrozenTrial]) -> set[TrialConfig]:
    """The configurations that earlier studies tried."""
    return {config_of(trial) for trial in history if source_of(trial) is not None}
