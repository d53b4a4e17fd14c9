"""Adds what several commands share to their parsers: a study file with `--set`, paths, numbers, faults in words."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from study.errors import UserError, printable
from study.secrets import masked

Command = Callable[[argparse.Namespace], int]  # returns the exit code
LONGEST_NAME_BYTES, LONGEST_PATH_BYTES = 255, 4095  # as Linux has them (NAME_MAX, and PATH_MAX less its end)
LONGEST_MESSAGE = 1000  # characters; a command line may have a million


class Parser(argparse.ArgumentParser):
    """Reads a command line; what is wrong with one is raised as a UserError, with what may be secret hidden."""

    def error(self, message: str) -> NoReturn:
        """Raises the UserError."""
        told = printable(masked(message), LONGEST_MESSAGE).rstrip(".")
        raise UserError(f"{self.prog}: {told}. `{self.prog} --help` says what it takes.")


def add_command(commands: Any, name: str, command: Command, text: str) -> Any:
    """Adds a command to the parser's `commands` and returns its own parser; `text` says what it does, in lower case."""
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(command=command)
    return parser


def add_study(parser: Any, may_lack: bool = False) -> None:
    """Adds the study file and `--set`, which overrides its values; `may_lack`: the file may be left out."""
    nargs = {"nargs": "?"} if may_lack else {}
    parser.add_argument("study", type=path, metavar="STUDY.yaml", help="the study file", **nargs)
    text = "take this value (as YAML) in place of the file's, for example training.max_steps=20; may be repeated"
    parser.add_argument("--set", action="append", default=[], metavar="KEY.PATH=VALUE", dest="overrides", help=text)


def add_directory(
    parser: Any, text: str = "the directory that `run` made", kind: Callable[[str], Any] | None = None
) -> None:
    """Adds a study's directory, read as `kind`: a path, or text where it may be a URL."""
    parser.add_argument("directory", type=kind or path, metavar="DIR", help=text)


def path(text: str) -> Path:
    """Returns a path of the command line, `~` being the home: a shell leaves it in `--out=~/x` and in quotes.

    Raises ArgumentTypeError for what can name none.
    """
    longest = max(map(len, os.fsencode(words(text)).split(b"/")))
    if longest > LONGEST_NAME_BYTES or len(os.fsencode(text)) > LONGEST_PATH_BYTES:
        rule = (
            f"must be a path of at most {LONGEST_PATH_BYTES:,} bytes, each of its names of at most {LONGEST_NAME_BYTES}"
        )
        raise argparse.ArgumentTypeError(rule)
    return Path(os.path.expanduser(text))


def words(text: str) -> str:
    """Returns a text of the command line as it is. Raises ArgumentTypeError where it is empty, or holds a NUL."""
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    if "\0" in text:
        raise argparse.ArgumentTypeError("must hold no NUL character")
    return text


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Returns what reads a whole number from `low` to `high` of the command line, or raises ArgumentTypeError."""

    def read(text: str) -> int:
        plain = text.isascii() and text.removeprefix("-").isdecimal() and len(text) <= len(str(high)) + 1
        if not plain or not low <= int(text) <= high:
            shown = printable(text, 80)
            raise argparse.ArgumentTypeError(f"must be a whole number from {low:,} to {high:,}, not {shown!r}")
        return int(text)

    return read


def command_line() -> str:
    """Returns the command that this process was started with, for a study's provenance."""
    return shlex.join(["python", "-m", "study", *sys.argv[1:]])
