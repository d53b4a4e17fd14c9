"""Finds foreign packages that take the names of our own: another `study` may come first on the path."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

ROOMS = ("search_spaces", "trainables", "study", "analysis")
CHECKOUT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Shadowing:
    """Foreign packages that come before ours: where each room is found instead (None: nowhere), and what to do."""

    checkout: Path
    places: Mapping[str, Path | None]

    @property
    def found(self) -> str:
        """The rule, and what breaks it."""
        places = "; ".join(f"{room} is {place or 'nowhere'}" for room, place in self.places.items())
        return f"The packages {', '.join(ROOMS)} must be those of {self.checkout}; {places}."

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return (
            "Run python -m study in that folder, and uninstall or rename what has taken the names, or take it from "
            "PYTHONPATH."
        )

    def __str__(self) -> str:
        return f"{self.found} {self.remedy}"


def shadowing(checkout: Path = CHECKOUT) -> Shadowing | None:
    """Returns what takes the place of the checkout's packages; None where all of them are found."""
    wrong = {room: place for room in ROOMS if (place := _found(room)) != checkout / room}
    return Shadowing(checkout, wrong) if wrong else None


def foreign_rooms(checkout: Path = CHECKOUT, path: Sequence[str] | None = None) -> tuple[Path, ...]:
    """Returns packages on the path (default: `sys.path`) that have a room's name and are not ours, also behind ours."""
    entries = dict.fromkeys(sys.path if path is None else path)
    found = (place for entry in entries for room in ROOMS if (place := _found(room, [entry])))
    return tuple(dict.fromkeys(place for place in found if place != checkout / place.stem))


def _found(room: str, path: list[str] | None = None) -> Path | None:
    """The folder (or file) of the package that an import would take; None for none."""
    try:
        spec = find_spec(room) if path is None else PathFinder.find_spec(room, path)
    except (ImportError, ValueError):  # a module without a specification, set by hand
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve()
    return Path(spec.origin).resolve() if spec.origin else None
