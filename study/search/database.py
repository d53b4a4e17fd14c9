"""The study's `optuna.db`: one Optuna study, as `optuna-dashboard` shows it. (no torch, no ray)"""

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

STATES = {"complete": TrialState.COMPLETE, "stopped": TrialState.PRUNED}  # of Optuna; all others fail


BUSY_SECONDS = 60.0  # a dashboard that reads may hold the database for a moment
COUNTS = text("SELECT state, COUNT(*) FROM trials WHERE study_id = :study GROUP BY state")
PLAN = "plan"  # the study's attribute that says what the search was begun with


class SearchDatabase:
    """One Optuna study in an SQLite file. Every method raises StoreError where the file cannot be read or written.

    `plan` says what the search consists of, JSON-ready: a database that was begun with another one is refused. Its
    trials are kept once they were read, and read again where the file has more or other ended ones: Optuna would read
    every running trial anew at each look.
    """

    def __init__(
        self, file: Path, name: str, directions: Sequence[str], metrics: Sequence[str], plan: Mapping[str, Any]
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._file = file.resolve()
        self._trials: dict[int, FrozenTrial] = {}  # by number
        url = URL.create("sqlite", database=str(self._file)).render_as_string()
        with self._at_work():
            self._storage = optuna.storages.RDBStorage(
                url,
                engine_kwargs={"connect_args": {"timeout": BUSY_SECONDS}},
            )
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=name,
                directions=directions,
                sampler=optuna.samplers.RandomSampler(seed=0),  # never asked: proposals are drawn from a copy
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
        """Ends a running trial; values are for a complete one, in the objectives' own directions."""
        with self._at_work():
            key = self._storage.get_trial_id_from_study_id_trial_number(self._key, trial.number)
            for name, value in attributes.items():  # before its end, after which Optuna takes none
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


def config_of(trial: FrozenTrial) -> TrialConfig:
    """The configuration that was asked for, or that an earlier study tried."""
    return TrialConfig.from_dict(trial.user_attrs["config"])


def known_before(history: Iterable[FrozenTrial]) -> set[TrialConfig]:
    """The configurations that earlier studies know."""
    return {config_of(trial) for trial in history if "earlier" in trial.user_attrs}


def ending_attributes(
    status: str, reason: str | None, train_steps: int | None, values: Sequence[float] | None
) -> dict[str, Any]:
    """How a trial ended; a stopped one's objective values with the optimizer steps that they were reached in."""
    attributes: dict[str, Any] = {"status": status, "reason": reason}
    if status == "stopped":
        attributes |= {"train_steps": train_steps, "values_so_far": None if values is None else list(values)}
    return attributes
