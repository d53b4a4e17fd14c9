"""Keeps the study's trials in `optuna.db`: one Optuna study, which `optuna-dashboard` shows.

A trial's name, configuration and end are its user attributes (`study.search.trial_attributes`).
"""

from __future__ import annotations

import json
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL, Engine, text

from study.errors import StoreError, printable
from study.records.layout import is_there
from study.records.study_files import refuse_link
from study.search.trial_attributes import parted
from trainables.guarded_files import FileRefusedError, open_regular

PLAN = "plan"  # the study's attribute that says what the search was begun with
BUSY_SECONDS = 20.0  # a dashboard that reads may hold the database for a moment
SQLITE_START = b"SQLite format 3\0"
HOLDERS = (
    "Close what may hold it: optuna-dashboard, a viewer such as sqlite3 or DB Browser, another process; on a network "
    "file system (NFS), copy the study's directory to a local disk. Then try again."
)
RESTORE = (
    "Move the file away: `resume` makes it anew from the records. Or put a copy in its place, free some space, or give "
    "yourself the right to write."
)
COUNTS = text("SELECT state, COUNT(*) FROM trials WHERE study_id = :study GROUP BY state")

INSERT_TRIALS = (
    "INSERT INTO trials (trial_id, number, study_id, state, datetime_start, datetime_complete)"
    " VALUES (?, ?, ?, ?, ?, ?)"
)
INSERT_VALUES = "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (?, ?, ?, 'FINITE')"
INSERT_PARAMETERS = (
    "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) VALUES (?, ?, ?, ?)"
)
INSERT_ATTRIBUTES = 'INSERT INTO trial_user_attributes (trial_id, "key", value_json) VALUES (?, ?, ?)'

Rows = Iterator[tuple[Any, ...]]


class SearchDatabase:
    """One Optuna study in an SQLite file. Every method raises StoreError where the file cannot be read or written.

    `plan` says what the search consists of, JSON-ready: a database that was begun with another plan is refused. Trials
    are cached in memory, and read again when the file has more trials or more of them have ended: Optuna alone would
    read every running trial again at each call. Trials that are not the search's own are left out; `foreign` says why,
    by Optuna's number.
    """

    def __init__(
        self, file: Path, name: str, directions: Sequence[str], metrics: Sequence[str], plan: Mapping[str, Any]
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._file = file.absolute()
        self._trials: dict[int, FrozenTrial] = {}  # by number
        self._own: dict[int, FrozenTrial] = {}  # without those of `foreign`
        self.foreign: Mapping[int, str] = {}
        self._objectives = len(directions)
        url = URL.create("sqlite", database=str(self._file)).render_as_string()
        self._check_file()
        with self._at_work():
            self._await_lock()
            waiting = {"connect_args": {"timeout": BUSY_SECONDS}}
            self._storage = optuna.storages.RDBStorage(url, engine_kwargs=waiting)
            self._refuse_others(name)
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
                own, self.foreign = parted(self._trials.values(), self._objectives)
                self._own = {trial.number: trial for trial in own}
            return list(self._own.values())

    def add(self, trial: FrozenTrial) -> None:
        """Adds a trial with its parameters and attributes in one transaction: after a kill it is whole or not there."""
        with self._at_work():
            self._keep(self._storage.create_new_trial(self._key, template_trial=trial))

    def add_all(self, trials: Sequence[FrozenTrial]) -> None:
        """Adds trials, also ended ones, in one transaction."""
        if trials:
            with self._at_work():
                insert_trials(self._storage.engine, self._key, trials)

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
        self._trials[kept.number] = self._own[kept.number] = kept

    def _check_file(self) -> None:
        """Refuses what SQLite would wait for, write through, or take hours to read."""
        if not is_there(self._file):
            return
        refuse_link(self._file)
        try:
            with open_regular(self._file) as content:
                start = content.read(len(SQLITE_START))
        except FileRefusedError as error:
            raise self._error(error.found, error.remedy) from None
        except OSError as error:
            raise self._error(error.strerror or str(error), RESTORE) from None
        if start not in (b"", SQLITE_START):  # an empty file is a database to be made
            raise self._error("it is not a database of SQLite", RESTORE)

    def _await_lock(self) -> None:
        """Waits for whoever holds the file; Optuna would try again and again, each time so long."""
        with closing(sqlite3.connect(self._file, timeout=BUSY_SECONDS)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()

    def _refuse_others(self, name: str) -> None:
        there = [study.study_name for study in self._storage.get_all_studies()]
        if there and name not in there:
            rule = f"{self._file} must hold the search of this study, {name}"
            raise StoreError(rule, f"it holds that of {printable(', '.join(there), 200)}", RESTORE)

    def _begin(self, metrics: Sequence[str], plan: Mapping[str, Any]) -> None:
        there = self._study.user_attrs.get(PLAN)
        if there is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                self._study.set_metric_names(list(metrics))
            self._study.set_user_attr(PLAN, plan)
        elif there != plan:
            begun = there if isinstance(there, dict) else {}
            changed = [name for name in plan if begun.get(name) != plan[name]]
            raise StoreError(
                f"{self._file} must hold the search that the study file asks for",
                f"it was begun with other {', '.join(changed)}",
                "Restore the study directory's study.yaml, or run the changed study in a new directory.",
            )

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except Exception as error:  # of a damaged database Optuna raises whatever its parts do
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            if "database is locked" in reason or "database table is locked" in reason:
                found = f"something else has held it for more than {BUSY_SECONDS:g} s (database is locked)"
                raise StoreError(f"{self._file} must be free to be written", found, HOLDERS) from error
            raise self._error(printable(reason, 400), RESTORE) from error

    def _error(self, found: str, remedy: str) -> StoreError:
        return StoreError(f"{self._file} must be a database that Optuna can read and write", found, remedy)


def insert_trials(engine: Engine, study_key: int, trials: Sequence[FrozenTrial]) -> None:
    """Adds the trials after those that are there, with parameters, finite values and user attributes; all or none.

    Writes what `optuna.Study.add_trials` would, which takes 10 ms for each. Trials with intermediate values or system
    attributes are none of ours.
    """
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # before the numbers are read, so that nobody else takes them
        last = connection.exec_driver_sql("SELECT COALESCE(MAX(trial_id), 0) FROM trials").scalar_one()
        count = "SELECT COUNT(*) FROM trials WHERE study_id = ?"
        first = connection.exec_driver_sql(count, (study_key,)).scalar_one()
        keyed = [(last + 1 + place, trial) for place, trial in enumerate(trials)]
        rows = [(key, first + key - last - 1, study_key, one.state.name, *_times(one)) for key, one in keyed]
        for statement, many in ((INSERT_TRIALS, iter(rows)), *_parts(keyed)):
            if listed := list(many):
                connection.exec_driver_sql(statement, listed)
        connection.commit()


def _parts(keyed: Sequence[tuple[int, FrozenTrial]]) -> tuple[tuple[str, Rows], ...]:
    return (
        (INSERT_VALUES, ((key, place, value) for key, one in keyed for place, value in enumerate(one.values or ()))),
        (INSERT_PARAMETERS, ((key, *row) for key, one in keyed for row in _parameters(one))),
        (
            INSERT_ATTRIBUTES,
            ((key, name, json.dumps(value)) for key, one in keyed for name, value in one.user_attrs.items()),
        ),
    )


def _parameters(trial: FrozenTrial) -> Rows:
    for name, value in trial.params.items():
        kind = trial.distributions[name]
        yield name, kind.to_internal_repr(value), distribution_to_json(kind)


def _attributes(trial: FrozenTrial) -> Rows:
    return ((name, json.dumps(value)) for name, value in trial.user_attrs.items())


def _times(trial: FrozenTrial) -> tuple[str | None, str | None]:
    """Start and end as Optuna keeps them in SQLite: UTC, without saying so."""
    start, end = (_utc(moment) for moment in (trial.datetime_start, trial.datetime_complete))
    return start, end


def _utc(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
