"""The commands. (standard library at import: `--help` and `doctor` answer where packages are missing)"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from study.cluster_cli import add_cluster_commands
from study.faults import ConfigError
from study.output import flush_output, say, tolerate_encodings
from study.shadowing import shadowing

DONE, FAILED, WRONG_INPUT = 0, 1, 2
TRACEBACK_VARIABLE = "LORA_FRONTIER_TRACEBACK"
DESCRIPTION = "Which LoRA or QLoRA configuration gives the best model for the GPU I have?"
EPILOG = """\
examples:
  python -m study doctor
  python -m study plan study/studies/quickstart.yaml
  python -m study run study/studies/quickstart.yaml --set training.max_steps=20
  python -m study resume runs/quickstart-20260131-120000

exit codes: 0 done, also where some trials failed; 2 the input is wrong; 1 it failed otherwise"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; answers the exit code: 0 done, 2 wrong input, 1 failed otherwise."""
    tolerate_encodings()
    try:
        options = _parser().parse_args(arguments)
    finally:  # of `--help` argparse makes an end itself
        flush_output()
    try:
        foreign = shadowing()
        if foreign and options.command is not _doctor:
            return _complain(foreign, FAILED)
        command: Callable[[argparse.Namespace], int] = options.command
        return command(options)
    except KeyboardInterrupt:
        return _complain("Interrupted.", FAILED)
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> int:
    """Says what went wrong: with its own words where the error was foreseen, else in one line."""
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exception(error)
    if isinstance(error, ConfigError):
        return _complain("\n".join(map(str, error.faults)), WRONG_INPUT)
    if isinstance(error, (_loaded("study.store", "StoreError"), _loaded("analysis.load", "StudyDirectoryError"))):
        return _complain(str(error), WRONG_INPUT)
    if isinstance(error, _loaded("study.jobs", "JobError")):
        return _complain(str(error), FAILED)
    if isinstance(error, _loaded("study.lifecycle", "StudyError")):
        return _complain(f"{error}\n{_traceback_hint()}", FAILED)
    if isinstance(error, ModuleNotFoundError):
        remedy = "Run: pip install -e . (python -m study doctor says what else is missing)"
        return _complain(f"The package {error.name} is not installed. {remedy}", FAILED)
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return _complain(f"It failed: {reason}\n{_traceback_hint()}", FAILED)


def _loaded(module: str, name: str) -> Any:
    """An exception's class, or nothing where its module was never imported, so that it cannot have been raised."""
    return getattr(sys.modules.get(module), name, ())


def _complain(text: str, exit_code: int) -> int:
    try:
        print(text, file=sys.stderr, flush=True)
    except BrokenPipeError:  # nobody listens; the exit code says it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    return exit_code


def _traceback_hint() -> str:
    return f"Set {TRACEBACK_VARIABLE}=1 to see where." if not os.environ.get(TRACEBACK_VARIABLE) else "See above."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m study",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    _add_study_commands(commands)
    _add_directory_commands(commands)
    add_cluster_commands(commands, _add_study)
    text = "say what is missing on this machine, and how to get it"
    commands.add_parser("doctor", help=text, description=f"{text.capitalize()}.").set_defaults(command=_doctor)
    return parser


def _add_study_commands(commands: Any) -> None:
    run_text = "run a study: train its trials, then print the front and write a report"
    description = "check a study's file, model and data, and say what it would run"
    for name, function, text in (("run", _run, run_text), ("plan", _plan, description)):
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        _add_study(command)
        command.set_defaults(command=function)
        if function is _run:
            text = "the study's directory, new or empty (default: NAME-date-time in the study's storage folder)"
            command.add_argument("--out", type=Path, metavar="DIR", help=text)


def _add_study(command: Any, may_lack: bool = False) -> None:
    nargs = {"nargs": "?"} if may_lack else {}
    command.add_argument("study", type=Path, metavar="STUDY.yaml", help="the study file", **nargs)
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY.PATH=VALUE",
        dest="overrides",
        help="take this value (as YAML) in place of the file's, for example training.max_steps=20; may be repeated",
    )


def _add_directory_commands(commands: Any) -> None:
    resume_text = "go on with a study that was interrupted; what has ended is kept"
    report_text = "write a study's report.html and pareto.json anew, also while it runs"
    for name, function, text in (("resume", _resume, resume_text), ("report", _report, report_text)):
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        kind = str if function is _resume else Path  # a URL is no path
        command.add_argument("directory", type=kind, metavar="DIR", help="the directory that `run` made, or its URL")
        command.set_defaults(command=function)


def _run(options: argparse.Namespace) -> int:
    from study.config import load_study
    from study.lifecycle import begin, finish

    config = load_study(options.study, options.overrides)
    command = shlex.join(["python", "-m", "study", *sys.argv[1:]])
    return finish(begin(config, options.out, command, datetime.now().astimezone()))


def _plan(options: argparse.Namespace) -> int:
    from study.config import load_study
    from study.description import describe

    say(describe(load_study(options.study, options.overrides)))
    return DONE


def _resume(options: argparse.Namespace) -> int:
    from study.lifecycle import finish, here, reopen

    return finish(reopen(here(options.directory)))


def _report(options: argparse.Namespace) -> int:
    from analysis.report import write_report
    from study.lifecycle import study_file

    study_file(options.directory)
    say(str(write_report(options.directory)))
    return DONE


def _doctor(options: argparse.Namespace) -> int:
    from study.doctor import print_doctor

    return print_doctor()
