"""Adds what several commands share to their parsers: a study file with `--set`, a study's directory."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Command = Callable[[argparse.Namespace], int]  # returns the exit code


def add_command(commands: Any, name: str, command: Command, text: str) -> Any:
    """Adds a command to the parser's `commands` and returns its own parser; `text` says what it does, in lower case."""
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(command=command)
    return parser


def add_study(parser: Any, may_lack: bool = False) -> None:
    """Adds the study file and `--set`, which overrides its values; `may_lack`: the file may be left out."""
    nargs = {"nargs": "?"} if may_lack else {}
    parser.add_argument("study", type=Path, metavar="STUDY.yaml", help="the study file", **nargs)
    text = "take this value (as YAML) in place of the file's, for example training.max_steps=20; may be repeated"
    parser.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE", dest="overrides", help=text)


def add_directory(parser: Any, text: str = "the directory that `run` made", kind: Callable[[str], Any] = Path) -> None:
    """Adds a study's directory, read as `kind`: a path, or text where it may be a URL."""
    parser.add_argument("directory", type=kind, metavar="DIR", help=text)


def command_line() -> str:
    """Returns the command that this process was started with, for a study's provenance."""
    return shlex.join(["python", "-m", "study", *sys.argv[1:]])
