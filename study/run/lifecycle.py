"""A study from its beginning to its end: begun, gone on with, finished. (no torch; ray only while it runs)"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.load import load_study as load_results
from analysis.pareto import front
from study.cluster.object_store import Mirror
from study.cluster.ray_address import LOCAL, ray_address
from study.config.study_config import StudyConfig, load_study, to_yaml_text
from study.environment import provenance
from study.errors import DONE, FAILED, WRONG_INPUT, PlanError, StoreError, StudyError
from study.output import resume_command, say
from study.plan.known_memory import KnownMemory
from study.plan.preflight import Preflight, check
from study.records.files import write_whole
from study.records.layout import DATABASE_FILE, STUDY_FILE, study_file
from study.records.store import ResultsStore
from study.reporting.summary import ending_text
from study.run.directory import check_free, make_directory, prune_adapters
from study.run.loggers import check_loggers
from study.search.study_search import open_search
from study.search.warm_start import WarmStart, read_warm_starts
from trainables.base_model.location import name_and_place

if TYPE_CHECKING:
    from study.run.driver import StudyRun


def begin(config: StudyConfig, out: Path | None, command: str, now: datetime) -> StudyRun:
    """Makes a study's directory: `out`, or `storage/NAME-date-time`.

    Checks model and data first. Raises ConfigError where they are wrong, or `out` is in use; StoreError.
    """
    if out is not None:
        check_free(out)
    check_loggers(config.file, config.loggers)
    found = check(config, here=ray_address() == LOCAL)
    warm_starts = read_warm_starts(config)
    facts = provenance.collect(command, now)
    directory = make_directory(config, out, now)
    provenance.write(directory, facts)
    write_whole(directory / STUDY_FILE, to_yaml_text(config))
    study = _open(config, directory, found)
    _tell_warm_starts(study, warm_starts)
    return study


def reopen(directory: Path) -> StudyRun:
    """Goes on with a study: records and search are made to agree, so that each of its trials ends exactly once.

    Raises ConfigError where it is no study, or its model or data are not there any more; StoreError where it is in use.
    """
    from study.run.driver import remaining

    study = _open(load_study(study_file(directory)), directory.absolute())
    try:
        if any(remaining(study).values()):
            study = replace(study, found=check(study.config, here=ray_address() == LOCAL))
        if not study.search.proposals():  # it died before it had begun
            _tell_warm_starts(study, read_warm_starts(study.config))
    except BaseException:
        study.store.close()
        raise
    return study


def finish(study: StudyRun) -> int:
    """Runs what has not ended, writes table and report, and says how it all ended; answers the exit code.

    0 also where some trials failed, 1 where none gave a result or some are left, 2 where no machine can run it. Raises
    StudyError where the run breaks.
    """
    try:
        with _copied(study):
            return _run_and_conclude(study)
    except PlanError as error:
        print(error, file=sys.stderr)
        return WRONG_INPUT
    except StoreError as error:
        raise StudyError(str(error)) from error
    except KeyboardInterrupt:
        say(f"\nInterrupted; {_how_to_go_on(study)}")
        return FAILED
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise StudyError(f"The study broke off: {reason}\n{_how_to_go_on(study)}") from error
    finally:
        study.store.close()


def _copied(study: StudyRun) -> AbstractContextManager[object]:
    """Keeps the study's place in an object store up to date, where it has one."""
    return nullcontext() if study.url is None else Mirror(study.directory, study.url)


def _run_and_conclude(study: StudyRun) -> int:
    # Here and not above: Ray takes seconds that `plan` and refusals need not wait for.
    from study.run.driver import remaining, run_study

    left = sum(remaining(study).values())
    if left:
        model = name_and_place(study.config.trial.base_model)
        say(f"{study.config.name}: {left} {_trials(left)} to run over {model}. Results go to {study.directory}")
        run_study(study, say, meanwhile=partial(_conclude, study))
    else:
        say(f"{study.config.name}: nothing is left to run, all trials have ended.")
        _conclude(study)
    records = study.store.records()
    left = sum(remaining(study).values())
    if left:
        say(f"\n{left} {_trials(left)} did not run to an end. {_how_to_go_on(study)}")
    with_result = any(record.status in ("complete", "stopped") for record in records)
    return DONE if with_result and not left else FAILED


def _conclude(study: StudyRun) -> None:
    # Here and not above: the library that draws takes its time too.
    from analysis.report.page import write_report

    records = study.store.records()
    study.store.write_table()
    members = front(records, study.config.objectives)
    prune_adapters(study.directory, study.config.adapters, records, [record.trial_id for record in members])
    report = write_report(study.directory)
    say("\n" + ending_text(load_results(study.directory), report))


def _how_to_go_on(study: StudyRun) -> str:
    ended = len(study.store.records())
    kept = f"{ended} {_trials(ended)} ended and {'is' if ended == 1 else 'are'} kept"
    return f"{kept}. Go on: {resume_command(study.directory)}"


def _trials(count: int) -> str:
    return "trial" if count == 1 else "trials"


def _open(config: StudyConfig, directory: Path, found: Preflight | None = None) -> StudyRun:
    from study.run.driver import StudyRun

    store = ResultsStore(directory)
    store.own()
    try:
        search = open_search(config, directory / DATABASE_FILE, KnownMemory(config))
        search.reconcile(store.records())
    except BaseException:
        store.close()
        raise
    return StudyRun(config, directory, search, store, found)


def _tell_warm_starts(study: StudyRun, warm_starts: Sequence[WarmStart]) -> None:
    for one in warm_starts:
        study.search.know(one.taken)
        say(str(one))
