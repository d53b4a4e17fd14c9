"""Whether Python finds our own rooms: a foreign package named `study` may come first. (standard library)"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

ROOMS = ("search_spaces", "trainables", "study", "analysis")
CHECKOUT = Path(__file__).resolve().parents[1]


def shadowing(checkout: Path = CHECKOUT) -> str | None:
    """What is wrong, and the remedy, where another package takes a room's place; None where all is well."""
    wrong = {room: place for room in ROOMS if (place := _found(room)) != checkout / room}
    if not wrong:
        return None
    places = "; ".join(f"{room} is {place or 'nowhere'}" for room, place in wrong.items())
    return (
        f"The packages {', '.join(ROOMS)} must be those of {checkout}; {places}. Run python -m study in that folder, "
        "and uninstall or rename what has taken the names, or take it from PYTHONPATH."
    )


def foreign_rooms(checkout: Path = CHECKOUT, path: Sequence[str] | None = None) -> tuple[Path, ...]:
    """Packages on the path (default: `sys.path`) that bear a room's name and are not ours, also behind ours."""
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
