"""Reads the files of a study's directory through one guard: regular, bounded in size and depth, well formed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from study.errors import ConfigError, StoreError
from study.records.layout import is_there
from study.strict_yaml import MAX_BYTES, parse_yaml
from trainables.guarded_files import MIB, FileRefusedError, read_bytes, read_json, read_text

MOST_BYTES = 16 * MIB  # of a file that a study writes beside its records
SECTIONS = ("base_model", "dataset", "search", "training", "hardware", "generation", "early_stopping")


def read_object(file: Path, remedy: str) -> dict[str, Any]:
    """Returns a file's JSON object, empty where the file is not there.

    Raises StoreError, with that remedy, for anything else than a regular file that holds one.
    """
    if not is_there(file):
        return {}
    values = _read(file, lambda: read_json(file, MOST_BYTES), remedy)
    if not isinstance(values, dict):
        raise StoreError(f"{file} must hold a JSON object", f"it holds {type(values).__name__}", remedy)
    return values


def read_word(file: Path) -> str | None:
    """Returns a small file's text; None where it is not there, or is no such file."""
    try:
        return read_text(file, MAX_BYTES)
    except (OSError, FileRefusedError):
        return None


def read_settings(file: Path, remedy: str) -> dict[str, Any]:
    """Returns a resolved study file's values. Raises StoreError, with that remedy, where it is none.

    Its sections are mappings or not there; what is in them is not looked at.
    """
    content = _read(file, lambda: read_bytes(file, MAX_BYTES), remedy)
    try:
        values = parse_yaml(content, str(file))
    except ConfigError as error:
        raise StoreError(f"{file} must be a study file", str(error), remedy) from None
    if not isinstance(values, dict):
        raise StoreError(f"{file} must hold keys and values", f"it holds {type(values).__name__}", remedy)
    for name in SECTIONS:
        if not isinstance(values.get(name), dict | None):
            raise StoreError(f"{file}: {name} must hold keys and values", f"it is {values[name]!r:.80}", remedy)
    return values


def refuse_link(file: Path) -> None:
    """Raises StoreError where a file that is to be written in place is a link.

    Reading through a link tells the reader nothing that is not theirs; writing would change a file of somebody else.
    """
    if file.is_symlink():
        rule = f"{file} must lie in the study's directory itself"
        raise StoreError(rule, "it is a link", "Put the file there in the link's place.")


@contextmanager
def written(file: Path, remedy: str) -> Iterator[None]:
    """Raises StoreError, with that remedy, where the file or folder cannot be written inside."""
    try:
        yield
    except FileExistsError:
        raise StoreError(f"{file} must be a folder", "a file lies there", remedy) from None
    except NotADirectoryError:
        raise StoreError(f"{file} must have a place", "a part of its path is no folder", remedy) from None
    except OSError as error:
        found = "it is a folder" if file.is_dir() else error.strerror or str(error)
        raise StoreError(f"{file} must be writable", found, remedy) from error


def _read(file: Path, read: Callable[[], Any], remedy: str) -> Any:
    try:
        return read()
    except FileRefusedError as error:
        raise StoreError(f"{file}: {error.rule}", error.found, remedy) from None
    except FileNotFoundError:
        raise StoreError(f"{file} must be there", "it is missing", remedy) from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{file} must be readable", str(error), remedy) from None
