"""The commands over results: `export`, `compare` and `watch`. (standard library at import)"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from study.output import say

DONE = 0


def add_result_commands(commands: Any) -> None:
    """Adds the commands over a study's results to the parser's."""
    text = "take a trial's adapter out of a study, with a model card, also merged or onto a hub"
    command = commands.add_parser("export", help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.add_argument("directory", type=Path, metavar="DIR", help="the study's directory")
    command.add_argument("trial", metavar="TRIAL", help="the trial's id, such as t003; the report names them")
    text = "a new or empty folder (default: NAME-TRIAL here, with -merged where it is)"
    command.add_argument("--to", type=Path, metavar="FOLDER", help=text)
    text = "write the base model in 16 bits with the adapter merged in, which needs no PEFT to load"
    command.add_argument("--merge", action="store_true", help=text)
    text = "also upload the folder to this hub repository, made private where it is new; the token is HF_TOKEN's"
    command.add_argument("--push", metavar="OWNER/NAME", help=text)
    command.set_defaults(command=_export)
    text = "set studies side by side: the same configurations, and the front of all together"
    command = commands.add_parser("compare", help=text, description=f"{text[0].upper()}{text[1:]}.")
    text = "studies' directories; result files of PEFT's method_comparison may stand beside them"
    command.add_argument("directories", type=Path, nargs="+", metavar="DIR", help=text)
    command.set_defaults(command=_compare)
    text = "show the live table of a study that another process runs"
    command = commands.add_parser("watch", help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.add_argument("directory", type=Path, metavar="DIR", help="the study's directory")
    command.set_defaults(command=_watch)


def _export(options: argparse.Namespace) -> int:
    from study.export.adapter import check_repository, export_trial, push_folder

    if options.push:
        check_repository(options.push)  # before anything is written
    suffix = "-merged" if options.merge else ""
    name = f"{options.directory.absolute().name}-{options.trial}{suffix}"
    target = options.to or Path(name)
    say(str(export_trial(options.directory, options.trial, target, options.merge)))
    if options.push:
        say(push_folder(target, options.push))
    return DONE


def _compare(options: argparse.Namespace) -> int:
    from study.reporting.comparison import compare

    say(compare(options.directories))
    return DONE


def _watch(options: argparse.Namespace) -> int:
    from study.progress.watch import watch

    watch(options.directory)
    return DONE
