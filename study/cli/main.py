"""Reads a command line, runs its command, and says in words what went wrong; `doctor` is here too."""

from __future__ import annotations

import os
import sys
import traceback
from argparse import Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from contextlib import suppress

from study.checkout import shadowing
from study.cli.arguments import Command, Parser, add_command
from study.cli.cluster_commands import add_cluster_commands
from study.cli.result_commands import add_result_commands
from study.cli.run_commands import add_run_commands
from study.errors import DONE, FAILED, TRACEBACK_VARIABLE, StudyError, UserError
from study.output import flush_output, lost_output, tolerate_encodings
from study.secrets import mask_logs, masked
from trainables.timeline import DRIVER, timeline

TRAINING = ("run", "resume", "confirm")
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
    """Runs one command and returns the exit code: 0 done, 2 wrong input, 1 failed otherwise.

    It and what it imports need the standard library alone, so that `--help` and `doctor` work where packages are
    missing: each command imports what it needs.
    """
    timeline.begin(DRIVER, from_start=arguments is None)
    tolerate_encodings()
    mask_logs()
    exit_code = _run(arguments)
    lost = lost_output()
    if lost:
        _complain(f"Standard output must be writable; {lost}. What was printed is not whole.", FAILED)
        named = list(sys.argv[1:] if arguments is None else arguments)
        if exit_code == DONE and named and named[0] not in TRAINING:  # a study stands, whoever could read of it
            return FAILED
    return exit_code


def _run(arguments: Sequence[str] | None) -> int:
    try:
        options = _parser().parse_args(arguments)
    except UserError as error:
        return _complain(str(error), error.exit_code)
    finally:  # of `--help` argparse makes an end itself
        flush_output()
    try:
        foreign = shadowing()
        if foreign and options.command is not _doctor:
            return _complain(str(foreign), FAILED)
        command: Command = options.command
        return command(options)
    except KeyboardInterrupt:
        return _complain("Interrupted.", FAILED)
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> int:
    """Says what went wrong: with its own words where the user can mend it, else in one line."""
    if os.environ.get(TRACEBACK_VARIABLE):
        _complain(masked("".join(traceback.format_exception(error))), FAILED)
    if isinstance(error, StudyError):  # of a cause that nobody may have foreseen
        return _complain(f"{error}\n{_traceback_hint()}", error.exit_code)
    if isinstance(error, UserError):
        return _complain(str(error), error.exit_code)
    if isinstance(error, ModuleNotFoundError):
        remedy = "Run: pip install -e . (python -m study doctor says what else is missing)"
        return _complain(f"The package {error.name} is not installed. {remedy}", FAILED)
    reason = " ".join(masked(f"{type(error).__name__}: {error}").split())
    return _complain(f"It failed: {reason}\n{_traceback_hint()}", FAILED)


def _complain(text: str, exit_code: int) -> int:
    try:
        print(text, file=sys.stderr, flush=True)
    except (OSError, ValueError):  # nobody listens, or it is closed; the exit code says it
        with suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    return exit_code


def _traceback_hint() -> str:
    return f"Set {TRACEBACK_VARIABLE}=1 to see where." if not os.environ.get(TRACEBACK_VARIABLE) else "See above."


def _parser() -> Parser:
    parser = Parser(
        prog="python -m study",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    add_run_commands(commands)
    add_result_commands(commands)
    add_cluster_commands(commands)
    add_command(commands, "doctor", _doctor, "say what is missing on this machine, and how to get it")
    return parser


def _doctor(options: Namespace) -> int:
    from study.cluster.surroundings import why_not
    from study.environment.doctor import print_doctor

    return print_doctor(why_not())
