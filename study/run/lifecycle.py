"""Takes a study from its beginning to its end: begins or reopens it, runs what is left, and finishes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from study.cluster.object_store import Mirror
from study.cluster.ray_start import RayStart
from study.cluster.surroundings import runs_here
from study.config.study_config import StudyConfig, load_study, to_yaml_text
from study.environment import provenance
from study.errors import DONE, FAILED, PlanError, StoreError, StudyError
from study.output import plural, resume_command, say
from study.plan.preflight import Preflight, check
from study.records.data_notes import data_notes
from study.records.files import write_whole
from study.records.layout import STUDY_FILE, study_file
from study.records.timeline.file import write_timeline
from study.run.conclusion import conclude, reason_of
from study.run.directory import check_free, make_directory
from study.run.loggers import check_loggers
from study.run.resumption.basis import basis_of, write_basis
from study.run.resumption.continuation import check_like, hold_to_basis
from study.run.resumption.opening import open_study
from study.run.study_run import StudyRun
from trainables.base_model.location import name_and_place
from trainables.timeline import timeline

if TYPE_CHECKING:
    from study.search.warm_start import WarmStart


def begin(
    config: StudyConfig,
    out: Path | None,
    command: str,
    now: datetime,
    confirmed: Path | None = None,
    accept_changed_data: bool = False,
    ray: RayStart | None = None,
) -> StudyRun:
    """Checks model and data, makes the study's directory (`out`, or `storage/NAME-date-time`), and opens its search.

    Where the study runs on this machine, `ray` starts beside that; its owner ends it where the study does not begin.
    Raises ConfigError where model or data are wrong, or `out` is in use; where `confirmed` names the study that this
    one confirms, also where they are not what that one began with, but for accepted data. Raises StoreError where the
    directory cannot be used.
    """
    if out is not None:
        check_free(out)
    check_loggers(config.file, config.loggers)
    found = _checked(config, ray)
    if confirmed is not None:
        check_like(confirmed, config, found, accept_changed_data)
    warm_starts = _warm_starts(config)
    facts = provenance.collect(command, now)
    directory = make_directory(config, out, now)
    provenance.write(directory, facts)
    basis = basis_of(config, found) if found else None
    if basis:
        write_basis(directory, basis)
    write_whole(directory / STUDY_FILE, to_yaml_text(config))
    try:
        study = replace(open_study(config, directory), found=found, basis=basis, ray=ray)
        _tell_warm_starts(study, warm_starts)
    except KeyboardInterrupt:
        if confirmed is None:
            say(f"The study is in {directory}. Continue it: {resume_command(directory)}")
        raise
    return study


def _checked(config: StudyConfig, ray: RayStart | None) -> Preflight:
    """What is found of model and data, while Ray starts on this machine.

    A cluster is connected to only once the study may run: that sends it our code.
    """
    here = runs_here()
    if ray is not None and here:
        ray.begin()
    with timeline.stage("checks"):
        return check(config, here=here)


def reopen(directory: Path, accept_changed_data: bool = False, ray: RayStart | None = None) -> StudyRun:
    """Opens a study again: records and search are made to agree, so that no trial is lost or recorded twice.

    Where it is to run on this machine, `ray` starts beside the checks; its owner ends it where they refuse the study.
    Raises ConfigError where it is no study, its model or data are not there any more, or what its trials depend on is
    not what it began with; `accept_changed_data` takes changed data. Raises StoreError where it is in use.
    """
    study = open_study(load_study(study_file(directory)), directory.absolute())
    try:
        if left := sum(study.remaining().values()):
            say(f"{study.config.name}: {plural(left, 'trial')} left. Checking model and data.")
            study = replace(study, found=_checked(study.config, ray), ray=ray)
            study = hold_to_basis(study, accept_changed_data)
        if not study.search.proposals():  # it died before it had begun
            _tell_warm_starts(study, _warm_starts(study.config))
    except BaseException:
        study.store.close()
        raise
    return study


def finish(study: StudyRun) -> int:
    """Runs what has not ended, writes table and report, says how it all ended, and returns the exit code.

    That is 0 also where some trials failed, or where all have ended and table or report could not be made; 1 where no
    trial gave a result or some are left. Raises PlanError where the machines cannot run it, StudyError where the run
    breaks, or its results could not be copied to the object store that they belong in.
    """
    try:
        with _copied(study):
            return _run_and_conclude(study)
    except (PlanError, StudyError):  # the input is wrong, and nothing broke off; or it is said already
        raise
    except StoreError as error:
        raise StudyError(str(error)) from error
    except KeyboardInterrupt:
        say(f"\nInterrupted; {_how_to_continue(study)}")
        return FAILED
    except Exception as error:
        raise StudyError(f"The study broke off: {reason_of(error)}\n{_how_to_continue(study)}") from error
    finally:
        study.store.close()


@contextmanager
def _copied(study: StudyRun) -> Iterator[None]:
    """Keeps the study's place in an object store up to date, where it has one.

    Raises StudyError where all trials have ended and their results are on this machine alone: who fetches them would
    miss some, so the study is not done.
    """
    if study.url is None:
        yield
        return
    broken = True
    try:
        with Mirror(study.directory, study.url):
            yield
            broken = False
    except (StoreError, OSError) as error:
        if broken or any(study.remaining().values()):
            raise
        kept = f"All trials have ended, and their results are whole in {study.directory}"
        again = f"Copy them: {resume_command(study.directory)}"
        raise StudyError(f"{kept}; not all of them could be copied to {study.url}: {error}\n{again}") from error


def _run_and_conclude(study: StudyRun) -> int:
    left = sum(study.remaining().values())
    if left:
        model = name_and_place(study.config.trial.base_model)
        say(f"{study.config.name}: {plural(left, 'trial')} to run over {model}. Results go to {study.directory}")
        for note in data_notes(study.found.statistics if study.found else {}):
            say(note)
        _run(study)
    else:
        say(f"{study.config.name}: nothing is left to run, all trials have ended.")
        conclude(study)
    records = study.store.records()
    left = sum(study.remaining().values())
    if left:
        say(f"\n{plural(left, 'trial')} did not run to an end. {_how_to_continue(study)}")
    with_result = any(record.status in ("complete", "stopped") for record in records)
    return DONE if with_result and not left else FAILED


def _run(study: StudyRun) -> None:
    """Runs what is left and concludes; what breaks once all trials have ended is told, and breaks nothing off."""
    # Here and not above: Ray takes seconds that `plan` and refusals need not wait for.
    with timeline.stage("imports"):
        from study.run.driver import run_study

    concluded = False

    def end() -> None:
        nonlocal concluded
        concluded = True
        with timeline.stage("report"):
            conclude(study)

    try:
        run_study(study, say, meanwhile=end)
    except PlanError:
        raise
    except Exception as error:
        if any(study.remaining().values()):
            raise
        say(f"\nAll trials have ended and are kept. What follows on them broke off: {reason_of(error)}.")
        if not concluded:
            end()
    finally:
        write_timeline(study.directory, timeline.stages())


def _how_to_continue(study: StudyRun) -> str:
    ended = len(study.store.records())
    kept = f"{plural(ended, 'trial')} ended and {'is' if ended == 1 else 'are'} kept"
    return f"{kept}. Continue: {resume_command(study.directory)}"


def _warm_starts(config: StudyConfig) -> Sequence[WarmStart]:
    # Here and not above: it imports Optuna, which takes as long as all else, and Ray starts meanwhile.
    from study.search.warm_start import read_warm_starts

    return read_warm_starts(config)


def _tell_warm_starts(study: StudyRun, warm_starts: Sequence[WarmStart]) -> None:
    for one in warm_starts:
        study.search.know(one.taken)
        say(str(one))
