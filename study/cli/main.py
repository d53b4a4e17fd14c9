"""The commands. (standard library at import: `--help` and `doctor` answer where packages are missing)"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from study.checkout import shadowing
from study.cli.cluster_commands import add_cluster_commands
from study.cli.result_commands import add_result_commands
from study.errors import ConfigError
from study.output import flush_output, say, tolerate_encodings

DONE, FAILED, WRONG_INPUT = 0, 1, 2
WRONG_INPUT_ERRORS = (
    ("study.records.store", "StoreError"), ("analysis.load", "StudyDirectoryError"), ("study.plan.shares", "PlanError"),
)  # fmt: skip
TRACEBACK_VARIABLE = "LORA_FRONTIER_TRACEBACK"
DESCRIPTION = "Which LoRA or QLoRA configuration gives the best model for the GPU I have?"
EPILOG = """\
examples:
  python -m study doctor
  python -m study plan study/studies/quickstart.yaml
  python -m study plan study/studies/pubmedqa_t4.yaml --gpu t4 --gpus 4
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
    if isinstance(error, tuple(_loaded(*where) for where in WRONG_INPUT_ERRORS)):
        return _complain(str(error), WRONG_INPUT)
    if isinstance(error, _loaded("study.cluster.jobs", "JobError")):
        return _complain(str(error), FAILED)
    if isinstance(error, _loaded("study.run.lifecycle", "StudyError")):
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
    _add_confirm_command(commands)
    add_cluster_commands(commands, _add_study)
    add_result_commands(commands)
    text = "say what is missing on this machine, and how to get it"
    commands.add_parser("doctor", help=text, description=f"{text.capitalize()}.").set_defaults(command=_doctor)
    return parser


def _add_study_commands(commands: Any) -> None:
    run_text = "run a study: train its trials, then print the front and write a report"
    description = "check a study's file, model and data, and say what it would run, what fits, and what it would cost"
    for name, function, text in (("run", _run, run_text), ("plan", _plan, description)):
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        _add_study(command)
        command.set_defaults(command=function)
        if function is _plan:
            _add_hardware_options(command)
        if function is _run:
            text = "the study's directory, new or empty (default: NAME-date-time in the study's storage folder)"
            command.add_argument("--out", type=Path, metavar="DIR", help=text)


def _add_hardware_options(command: Any) -> None:
    text = "plan for this card of the catalogue, such as t4, in place of hardware.gpu (auto: what this machine has)"
    command.add_argument("--gpu", metavar="NAME", help=text)
    command.add_argument(
        "--gpus", metavar="N", help="plan for so many cards, in one machine, in place of hardware.gpus"
    )


def _add_confirm_command(commands: Any) -> None:
    text = "train a study's front and its near rivals again with other seeds, and measure them on the test split"
    command = commands.add_parser("confirm", help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.add_argument("directory", type=Path, metavar="DIR", help="the directory that `run` made")
    alone = "train each by itself, and time its epochs whole"
    command.add_argument("--alone", action="store_true", help=alone)
    command.set_defaults(command=_confirm)


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
        where = "the directory that `run` made" + (", or its URL" if function is _resume else "")
        command.add_argument("directory", type=kind, metavar="DIR", help=where)
        if function is _report:
            text = "say which configuration to take with so much memory, such as 8GiB, and what it costs"
            command.add_argument("--budget", metavar="BYTES", help=text)
        command.set_defaults(command=function)
        if function is _report:
            text = "show it in a browser of this machine instead, anew while the study runs; PORT 0 takes a free one"
            command.add_argument("--serve", type=int, nargs="?", const=0, metavar="PORT", help=text)
            text = "also print it to report.pdf, with the Chromium or Chrome of this machine"
            command.add_argument("--pdf", action="store_true", help=text)
            text = "also write every figure as PNG and SVG, and every table as CSV, into this folder"
            command.add_argument("--figures", type=Path, metavar="FOLDER", help=text)


def _run(options: argparse.Namespace) -> int:
    from study.config.study_config import load_study
    from study.run.lifecycle import begin, finish

    config = load_study(options.study, options.overrides)
    command = shlex.join(["python", "-m", "study", *sys.argv[1:]])
    return finish(begin(config, options.out, command, datetime.now().astimezone()))


def _plan(options: argparse.Namespace) -> int:
    from study.config.study_config import load_study
    from study.plan.description import describe

    asked = {"hardware.gpu": options.gpu, "hardware.gpus": options.gpus}
    # A name as text, whatever YAML would make of it.
    values = [f"{key}={value if key.endswith('s') else json.dumps(value)}" for key, value in asked.items() if value]
    say(describe(load_study(options.study, [*options.overrides, *values])))
    return DONE


def _resume(options: argparse.Namespace) -> int:
    from study.run.directory import here
    from study.run.lifecycle import finish, reopen

    return finish(reopen(here(options.directory)))


def _confirm(options: argparse.Namespace) -> int:
    from study.run.confirm import confirm

    command = shlex.join(["python", "-m", "study", *sys.argv[1:]])
    return confirm(options.directory.absolute(), options.alone, command, datetime.now().astimezone())


def _report(options: argparse.Namespace) -> int:
    from analysis.report.page import write_report
    from study.records.layout import study_file

    study_file(options.directory)
    if options.serve is not None:
        from study.reporting.live_report import serve

        serve(options.directory, options.serve, say)
        return DONE
    budget = None if options.budget is None else _budget_bytes(options.budget)
    report = write_report(options.directory)
    if budget is not None:
        from analysis.load import load_study
        from analysis.pareto import TOLERANCE
        from study.reporting.budget_card import budget_text

        say(budget_text(load_study(options.directory), budget, TOLERANCE) + "\n")
    say(str(report))
    if options.figures:
        from analysis.load import load_study
        from analysis.notebook import export_everything

        say("\n".join(map(str, export_everything(load_study(options.directory), options.figures))))
    if options.pdf:
        from study.reporting.pdf import print_report

        say(str(print_report(report)))
    return DONE


def _budget_bytes(text: str) -> int:
    from study.errors import ConfigFault
    from study.records.units import parse_bytes

    try:
        return parse_bytes(text)
    except ValueError as error:
        raise ConfigError([ConfigFault("--budget", "", text, str(error), "Write for example 8GiB.")]) from None


def _doctor(options: argparse.Namespace) -> int:
    from study.environment.doctor import print_doctor

    return print_doctor()
