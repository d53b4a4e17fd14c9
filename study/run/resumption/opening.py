"""Opens a study's results and search, and says which of them count for nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from study.config.study_config import StudyConfig
from study.output import plural, say
from study.plan.known_memory import KnownMemory
from study.records.layout import DATABASE_FILE, RESULTS_FILE, TORN_FILE
from study.records.reading import SetAside, first_reasons
from study.records.store import ResultsStore
from study.run.study_run import StudyRun

if TYPE_CHECKING:
    from study.search.study_search import StudySearch


def open_study(config: StudyConfig, directory: Path) -> StudyRun:
    """Opens a study in its directory, new or not, with results and search made to agree.

    Raises StoreError where the directory cannot be used, or is in use by another process.
    """
    # Here and not above: it imports Optuna, which takes as long as all else, and Ray starts meanwhile.
    from study.search.study_search import open_search

    store = ResultsStore(directory)
    store.own()
    try:
        try:
            search = open_search(config, directory / DATABASE_FILE, KnownMemory(config))
            store.set_aside(search.reconcile(store.records()))
        finally:  # also where the search cannot be opened: the lines are moved already
            _tell_moved(store)
        _tell_foreign(search)
    except BaseException:
        store.close()
        raise
    return StudyRun(config, directory, search, store)


def _tell_moved(store: ResultsStore) -> None:
    """Says which of the stored results count for nothing."""
    if store.moved:
        say(
            f"{plural(len(store.moved), 'line')} of {RESULTS_FILE} without a record that counts moved to {TORN_FILE}, "
            f"and trials without a record run again: {first_reasons(store.moved)}."
        )


def _tell_foreign(search: StudySearch) -> None:
    """Says which trials of the search's database count for nothing."""
    if foreign := [SetAside(number, reason) for number, reason in search.foreign.items()]:
        say(
            f"{plural(len(foreign), 'trial')} of {DATABASE_FILE} left out, which something else has added or changed: "
            f"{first_reasons(foreign, 'number')}."
        )
