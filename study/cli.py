"""The commands."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path

DONE, FAILED, WRONG_INPUT = 0, 1, 2


class UsageError(Exception):
    """The user's input is wrong; the message has rule, value and remedy."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; answers the exit code: 0 done, 2 wrong input, 1 failed otherwise."""
    from study.config import ConfigError
    from study.store import StoreError

    options = _parser().parse_args(arguments)
    try:
        command: Callable[[argparse.Namespace], int] = options.command
        return command(options)
    except ConfigError as error:
        for fault in error.faults:
            print(fault, file=sys.stderr)
        return WRONG_INPUT
    except (UsageError, StoreError) as error:
        print(error, file=sys.stderr)
        return WRONG_INPUT
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m study", description="Which LoRA configuration is best for my GPU?")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run a study")
    run.add_argument("study", type=Path, metavar="STUDY.yaml")
    run.add_argument("--out", type=Path, metavar="DIR", help="study directory (default: storage/NAME-date-time)")
    _add_overrides(run)
    run.set_defaults(command=_run)
    plan = commands.add_parser("plan", help="check a study, and say what it would run")
    plan.add_argument("study", type=Path, metavar="STUDY.yaml")
    _add_overrides(plan)
    plan.set_defaults(command=_plan)
    for name, function, text in (
        ("resume", _resume, "go on with a study that was interrupted"),
        ("report", _report, "write report.html and pareto.json anew"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("directory", type=Path, metavar="DIR")
        command.set_defaults(command=function)
    commands.add_parser("doctor", help="say what is missing on this machine").set_defaults(command=_doctor)
    return parser


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY.PATH=VALUE", dest="overrides", help="override one value"
    )


def _run(options: argparse.Namespace) -> int:
    from study.config import load_study
    from study.lifecycle import begin, finish

    config = load_study(options.study, options.overrides)
    command = shlex.join(["python", "-m", "study", *sys.argv[1:]])
    study = begin(config, options.out, command, datetime.now(timezone.utc))
    return finish(study)


def _plan(options: argparse.Namespace) -> int:
    from study.config import load_study
    from study.lifecycle import describe

    print(describe(load_study(options.study, options.overrides)))
    return DONE


def _resume(options: argparse.Namespace) -> int:
    from study.lifecycle import finish, reopen

    return finish(reopen(options.directory))


def _report(options: argparse.Namespace) -> int:
    from analysis.report import write_report

    if not (options.directory / "study.yaml").is_file():
        raise UsageError(f"DIR must be a study directory; {options.directory} has no study.yaml. Name one that `run` made.")
    print(write_report(options.directory))
    return DONE


def _doctor(options: argparse.Namespace) -> int:
    from study.doctor import print_doctor

    return print_doctor()
