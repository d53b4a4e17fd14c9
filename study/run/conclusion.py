"""Concludes a study: prints its front, writes table and report; a step that fails costs nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from errno import EDQUOT, EFBIG, ENOSPC
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from analysis.load import load_study as load_results
from analysis.pareto import front
from study.checkout import CHECKOUT
from study.errors import TRACEBACK_VARIABLE, UserError
from study.output import resume_command, say
from study.records.objectives import Objective
from study.records.record import TrialRecord
from study.reporting.summary import ending_text
from study.run.directory import prune_adapters
from study.run.study_run import StudyRun

Value = TypeVar("Value")
DISK_FULL = (ENOSPC, EDQUOT, EFBIG)
IMPORTS = ("study.records.results_table", "analysis.report.page")
MAKE_SCRIPT = "import os; os.nice(19); from analysis.report.javascript import javascript; javascript()"
SCRIPT_SECONDS = 120.0  # on a busy machine; a processor with nothing else to do takes two


def conclude(study: StudyRun) -> None:
    """Writes table and report, removes adapters that are not kept, and prints the front.

    The records are what counts, and they are kept already: whatever fails here is told in a line with its remedy, and
    the steps after it are taken.
    """
    records = study.store.records()
    attempted(study, "results.parquet could not be written", study.store.write_table)
    attempted(study, "Adapters that are not kept could not be removed", partial(_prune, study, records))
    report = attempted(study, "The report could not be written", partial(_write_report, study))
    text = attempted(study, "The end could not be told in full", partial(_ending, study, report))
    say("\n" + (text or plain_front(records, study.config.objectives)))


def prepare_conclusion() -> threading.Thread:
    """Begins, while the trials train, with what `conclude` would wait for, and returns the thread that does it.

    That is its imports, and the report's JavaScript where no earlier study has left it in the user's cache. What fails
    here fails again in `conclude`, which tells it.
    """
    thread = threading.Thread(target=_prepare, name="preparation of the end")
    thread.start()
    return thread


def _prepare() -> None:
    with suppress(Exception):
        for name in IMPORTS:
            import_module(name)
        from analysis.report.javascript import is_kept

        if not is_kept():  # in a process of its own: what makes it would keep this one's threads waiting
            _run_quietly([sys.executable, "-c", MAKE_SCRIPT])


def _run_quietly(command: Sequence[str]) -> None:
    nothing = subprocess.DEVNULL
    subprocess.run(
        command, cwd=CHECKOUT, stdin=nothing, stdout=nothing, stderr=nothing, timeout=SCRIPT_SECONDS, check=False
    )


def attempted(study: StudyRun, failure: str, step: Callable[[], Value]) -> Value | None:
    """Returns what a step returns; where it raises, says so with the remedy, and returns None."""
    again = resume_command(study.directory)

    def remedy(error: Exception) -> str:
        told = isinstance(error, UserError)  # then the remedy is among its words
        return "All records are kept." + ("" if told else f" {remedy_for(error)} {again}")

    return tolerated(failure, step, remedy)


def tolerated(
    failure: str, step: Callable[[], Value], remedy: Callable[[Exception], str] = lambda error: ""
) -> Value | None:
    """Returns what a step returns; where it raises, says so in one line with a remedy, and returns None."""
    try:
        return step()
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            traceback.print_exception(error)
        say(f"{failure}: {reason_of(error)}. {remedy(error)}".rstrip())
        return None


def reason_of(error: Exception) -> str:
    """Returns an error's text on one line, with its kind where it is none that words its rule and remedy."""
    if isinstance(error, UserError):
        return " ".join(str(error).split()).rstrip(". ")
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(". ")


def remedy_for(error: Exception, then: str = "finish the study again") -> str:
    """Returns what to do before a finishing step is taken again, with a colon before the command that takes it."""
    if isinstance(error, ImportError):
        package = (error.name or "").split(".")[0]
        missing = f"Install what is missing ({package})" if package else "Install what is missing"
        return f"{missing}: pip install -e . Then {then}:"
    if getattr(error, "errno", None) in DISK_FULL:
        return f"Free some space, then {then}:"
    if isinstance(error, OSError):
        return f"Make it a place where you may write, then {then}:"
    return f"To see where it failed, {then} with {TRACEBACK_VARIABLE}=1:"


def plain_front(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> str:
    """Returns the front's trials with their objectives, a line each, as the numbers stand in the records."""
    lines = [
        f"  {record.trial_id}: " + ", ".join(f"{one.metric} {record.measurements[one.metric]}" for one in objectives)
        for record in front(records, objectives)
    ]
    return "\n".join(["The Pareto front:", *lines]) if lines else "No trial is complete."


def _ending(study: StudyRun, report: Path | None) -> str:
    return ending_text(load_results(study.directory), report)


def _prune(study: StudyRun, records: Sequence[TrialRecord]) -> None:
    members = front(records, study.config.objectives)
    prune_adapters(study.directory, study.config.adapters, records, [record.trial_id for record in members])


def _write_report(study: StudyRun) -> Path:
    # Here and not above: the library that draws takes its time.
    from analysis.report.page import write_report

    return write_report(study.directory)
