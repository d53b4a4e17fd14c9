"""The commands that plan and train a study: `run`, `plan`, `resume` and `confirm`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from study.cli.arguments import add_command, add_directory, add_study, command_line, path, words
from study.errors import DONE
from study.output import plural, say
from trainables.timeline import timeline

if TYPE_CHECKING:
    from study.cluster.ray_start import RayStart


def add_run_commands(commands: Any) -> None:
    """Adds the commands to the parser's."""
    _add_run(commands)
    _add_plan(commands)
    text = "continue a study that was interrupted; what has ended is kept"
    parser = add_command(commands, "resume", _resume, text)
    add_directory(parser, "the directory that `run` made, or its URL", words)
    _add_acceptance(parser)
    _add_dashboard(parser)
    text = "train a study's front and its near rivals again with other seeds, and measure them on the test split"
    parser = add_command(commands, "confirm", _confirm, text)
    add_directory(parser)
    parser.add_argument("--alone", action="store_true", help="train each by itself, and time its epochs whole")
    _add_acceptance(parser)
    _add_dashboard(parser)


def _add_dashboard(parser: Any) -> None:
    text = "start Ray's dashboard too, which costs some seconds, and say its address"
    parser.add_argument("--dashboard", action="store_true", help=text)


def _add_acceptance(parser: Any) -> None:
    text = "continue although the data, the tokenizer or the engine is not what the study began with"
    parser.add_argument("--accept-changed-data", action="store_true", help=text)


def _add_run(commands: Any) -> None:
    text = "run a study: train its trials, then print the front and write a report"
    parser = add_command(commands, "run", _run, text)
    add_study(parser)
    text = "the study's directory, new or empty (default: NAME-date-time in the study's storage folder)"
    parser.add_argument("--out", type=path, metavar="DIR", help=text)
    _add_dashboard(parser)


def _add_plan(commands: Any) -> None:
    text = "check a study's file, model and data, and say what it would run, what fits, and what it would cost"
    parser = add_command(commands, "plan", _plan, text)
    add_study(parser)
    text = "plan for this card of the catalogue, such as t4, in place of hardware.gpu (auto: what this machine has)"
    parser.add_argument("--gpu", type=words, metavar="NAME", help=text)
    text = "plan for so many cards, in one machine, in place of hardware.gpus"
    parser.add_argument("--gpus", type=words, metavar="N", help=text)


def _run(options: argparse.Namespace) -> int:
    from study.config.study_config import load_study

    config = load_study(options.study, options.overrides)
    trials, model = plural(config.search.trials, "trial"), config.trial.base_model.path
    say(f"{config.name}: {trials} over {model}. Checking model and data.")
    with _interruptible(options) as ray:
        with timeline.stage("imports"):
            from study.run.lifecycle import begin, finish

        return finish(begin(config, options.out, command_line(), datetime.now().astimezone(), ray=ray))


@contextmanager
def _interruptible(options: argparse.Namespace) -> Iterator[RayStart]:
    """Gives the Ray that a study may start, which ends with it: SIGTERM is heard as Ctrl-C from here on."""
    from study.cluster.ray_start import RayStart, check_dashboard, terminated_as_interrupt

    if options.dashboard:
        check_dashboard()
    with terminated_as_interrupt(), RayStart(options.dashboard) as ray:
        yield ray


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
    with _interruptible(options) as ray:
        with timeline.stage("imports"):
            from study.run.directory import here
            from study.run.lifecycle import finish, reopen

        return finish(reopen(here(options.directory), options.accept_changed_data, ray))


def _confirm(options: argparse.Namespace) -> int:
    now = datetime.now().astimezone()
    with _interruptible(options) as ray:
        from study.run.confirm import confirm

        folder = options.directory.absolute()
        return confirm(folder, options.alone, command_line(), now, options.accept_changed_data, ray)
