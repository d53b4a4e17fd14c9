"""Takes a study from its beginning to its end: begins or reopens it, runs what is left, and finishes it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

from analysis.load import load_study as load_results
from analysis.pareto import front
from study.cluster.object_store import Mirror
from study.cluster.ray_address import LOCAL, ray_address
from study.config.study_config import StudyConfig, load_study, to_yaml_text
from study.environment import provenance
from study.errors import DONE, FAILED, PlanError, StoreError, StudyError
from study.output import plural, resume_command, say
from study.plan.known_memory import KnownMemory
from study.plan.preflight import Preflight, check
from study.records.data_notes import data_notes
from study.records.files import write_whole
from study.records.layout import DATABASE_FILE, STUDY_FILE, study_file
from study.records.store import ResultsStore
from study.reporting.summary import ending_text
from study.run.directory import check_free, make_directory, prune_adapters
from study.run.loggers import check_loggers
from study.run.study_run import StudyRun
from study.search.study_search import open_search
from study.search.warm_start import WarmStart, read_warm_starts
from trainables.base_model.location import name_and_place


def begin(config: StudyConfig, out: Path | None, command: str, now: datetime) -> StudyRun:
    """Checks model and data, makes the study's directory (`out`, or `storage/NAME-date-time`), and opens its search.

    Raises ConfigError where model or data are wrong, or `out` is in use; StoreError where the directory cannot be used.
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
    """Opens a study again: records and search are made to agree, so that no trial is lost or recorded twice.

    Raises ConfigError where it is no study, or its model or data are not there any more; StoreError where it is in use.
    """
    study = _open(load_study(study_file(directory)), directory.absolute())
    try:
        if any(study.remaining().values()):
            study = replace(study, found=check(study.config, here=ray_address() == LOCAL))
        if not study.search.proposals():  # it died before it had begun
            _tell_warm_starts(study, read_warm_starts(study.config))
    except BaseException:
        study.store.close()
        raise
    return study


def finish(study: StudyRun) -> int:
    """Runs what has not ended, writes table and report, says how it all ended, and returns the exit code.

    That is 0 also where some trials failed, 1 where none gave a result or some are left. Raises PlanError where the
    machines cannot run it, StudyError where the run breaks.
    """
    try:
        with _copied(study):
            return _run_and_conclude(study)
    except PlanError:  # the input is wrong; nothing broke off
        raise
    except StoreError as error:
        raise StudyError(str(error)) from error
    except KeyboardInterrupt:
        say(f"\nInterrupted; {_how_to_continue(study)}")
        return FAILED
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise StudyError(f"The study broke off: {reason}\n{_how_to_continue(study)}") from error
    finally:
        study.store.close()


def _copied(study: StudyRun) -> AbstractContextManager[object]:
    """Keeps the study's place in an object store up to date, where it has one."""
    return nullcontext() if study.url is None else Mirror(study.directory, study.url)


def _run_and_conclude(study: StudyRun) -> int:
    # Here and not above: Ray takes seconds that `plan` and refusals need not wait for.
    from study.run.driver import run_study

    left = sum(study.remaining().values())
    if left:
        model = name_and_place(study.config.trial.base_model)
        say(f"{study.config.name}: {plural(left, 'trial')} to run over {model}. Results go to {study.directory}")
        for note in data_notes(study.found.statistics if study.found else {}):
            say(note)
        run_study(study, say, meanwhile=partial(_conclude, study))
    else:
        say(f"{study.config.name}: nothing is left to run, all trials have ended.")
        _conclude(study)
    records = study.store.records()
    left = sum(study.remaining().values())
    if left:
        say(f"\n{plural(left, 'trial')} did not run to an end. {_how_to_continue(study)}")
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


def _how_to_continue(study: StudyRun) -> str:
    ended = len(study.store.records())
    kept = f"{plural(ended, 'trial')} ended and {'is' if ended == 1 else 'are'} kept"
    return f"{kept}. Continue: {resume_command(study.directory)}"


def _open(config: StudyConfig, directory: Path, found: Preflight | None = None) -> StudyRun:
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
