"""The commands that plan and train a study: `run`, `plan`, `resume` and `confirm`."""

from __future__ import annotations

import argparse
import json
from datetime import datetime
from typing import Any

from study.cli.arguments import add_command, add_directory, add_study, command_line, path, words
from study.errors import DONE
from study.output import say
from trainables.timeline import timeline


def add_run_commands(commands: Any) -> None:
    """Adds the commands to the parser's."""
    _add_run(commands)
    _add_plan(commands)
    text = "continue a study that was interrupted; what has ended is kept"
    parser = add_command(commands, "resume", _resume, text)
    add_directory(parser, "the directory that `run` made, or its URL", words)
    _add_acceptance(parser)
    text = "train a study's front and its near rivals again with other seeds, and measure them on the test split"
    parser = add_command(commands, "confirm", _confirm, text)
    add_directory(parser)
    parser.add_argument("--alone", action="store_true", help="train each by itself, and time its epochs whole")
    _add_acceptance(parser)


def _add_acceptance(parser: Any) -> None:
    text = "continue although the data, the tokenizer or the engine is not what the study began with"
    parser.add_argument("--accept-changed-data", action="store_true", help=text)


def _add_run(commands: Any) -> None:
    text = "run a study: train its trials, then print the front and write a report"
    parser = add_command(commands, "run", _run, text)
    add_study(parser)
    text = "the study's directory, new or empty (default: NAME-date-time in the study's storage folder)"
    parser.add_argument("--out", type=path, metavar="DIR", help=text)


def _add_plan(commands: Any) -> None:
    text = "check a study's file, model and data, and say what it would run, what fits, and what it would cost"
    parser = add_command(commands, "plan", _plan, text)
    add_study(parser)
    text = "plan for this card of the catalogue, such as t4, in place of hardware.gpu (auto: what this machine has)"
    parser.add_argument("--gpu", type=words, metavar="NAME", help=text)
    text = "plan for so many cards, in one machine, in place of hardware.gpus"
    parser.add_argument("--gpus", type=words, metavar="N", help=text)


def _run(options: argparse.Namespace) -> int:
    with timeline.stage("imports"):
        from study.config.study_config import load_study
        from study.run.lifecycle import begin, finish

    config = load_study(options.study, options.overrides)
    return finish(begin(config, options.out, command_line(), datetime.now().astimezone()))


def _plan(options: argparse.Namespace) -> int:
    from study.config.study_config import load_study
    from study.plan.description import describe

    asked = {"hardware.gpu": options.gpu, "hardware.gpus": options.gpus}
    # A name as text, whatever YAML would make of it.
    values = [
        f"{key}={value if key.endswith('s') else json.dumps(value)}"
        for key, value in asked.items()
        if value is not None
    ]
    say(describe(load_study(options.study, [*options.overrides, *values])))
    return DONE


def _resume(options: argparse.Namespace) -> int:
    with timeline.stage("imports"):
        from study.run.directory import here
        from study.run.lifecycle import finish, reopen

    return finish(reopen(here(options.directory), options.accept_changed_data))


def _confirm(options: argparse.Namespace) -> int:
    from study.run.confirm import confirm

    now = datetime.now().astimezone()
    return confirm(options.directory.absolute(), options.alone, command_line(), now, options.accept_changed_data)
