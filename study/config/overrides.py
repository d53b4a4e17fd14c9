"""Replaces values of a study file from the command line: `--set a.b=value`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from study.config.reader import OVERRIDES
from study.errors import Absent, ConfigError, ConfigFault
from study.strict_yaml import parse_yaml

EXAMPLE = "Write for example --set search.seed=1."
MOST_PARTS, LONGEST_KEY = 20, 10_000  # of a key, parts and characters; the deepest of a study file has four parts


def apply_overrides(study: dict[str, Any], overrides: Sequence[str]) -> tuple[frozenset[str], list[ConfigFault]]:
    """Puts the value of every override, read as YAML, into the study's mapping; later ones replace earlier ones.

    Returns the keys whose values came from overrides, and the faults of overrides that could not be applied. A number
    in a key counts a list's values from 0: `objectives.0.reference=20`.
    """
    keys: set[str] = set()
    faults: list[ConfigFault] = []
    for override in overrides:
        try:
            path, value = _parsed(override)
            keys.add(_put(study, path, value))
        except ConfigError as error:
            faults += error.faults
    return frozenset(keys), faults


def _parsed(override: str) -> tuple[list[str], Any]:
    key, equals, text = override.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise _error("", override, "must be KEY.PATH=VALUE", EXAMPLE)
    if len(path) > MOST_PARTS or len(key) > LONGEST_KEY:
        rule = f"must have a key of at most {MOST_PARTS} parts and {LONGEST_KEY:,} characters"
        raise _error("", Absent.UNSHOWN, rule, EXAMPLE)
    try:
        return path, parse_yaml(text, OVERRIDES)
    except ConfigError as error:
        raise ConfigError(replace(fault, key=".".join(path), value=text) for fault in error.faults) from None


def _put(study: dict[str, Any], path: list[str], value: Any) -> str:
    """Puts the value at its path; returns the key of the outermost mapping that was made for it, else its own."""
    place: Any = study
    made = ""
    for depth, part in enumerate(path[:-1], start=1):
        if isinstance(place, dict) and place.get(part) is None:
            place[part] = {}
            made = made or ".".join(path[:depth])
        place = place[_step(place, part, path, depth - 1, value)]
    place[_step(place, path[-1], path, len(path) - 1, value)] = value
    return made or ".".join(path)


def _step(place: Any, part: str, path: list[str], depth: int, value: Any) -> str | int:
    """The part of a path as a key of the mapping, or an index of the list, that `place` is."""
    if isinstance(place, dict):
        return part
    key, above = ".".join(path), ".".join(path[:depth])
    if isinstance(place, list):
        if part.isdecimal() and len(part) < 6 and int(part) < len(place):
            return int(part)
        rule = f"must have a number under {len(place)} after `{above}`, which is a list, counted from 0"
        raise _error(key, value, rule, f"Write for example --set {above}.0=..., or give the whole list.")
    if above == "space":
        remedy = "Write the space inline in the study file, or name another file: --set space=PATH."
        raise _error(key, value, f"must not reach into a space file; space is {place!r}", remedy)
    raise _error(key, value, f"must end at `{above}`, which holds no keys", f"Write --set {above}=VALUE.")


def _error(key: str, value: Any, rule: str, remedy: str) -> ConfigError:
    return ConfigError([ConfigFault(OVERRIDES, key, value, rule, remedy)])
