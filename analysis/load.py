"""Reads a study directory: its settings, objectives and records, and where they came from."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from study.errors import StoreError, UserError
from study.records.layout import COST_FILE, PROVENANCE_FILE, RESULTS_FILE, STUDY_FILE
from study.records.objectives import METRICS, Direction, Objective
from study.records.reading import SetAside, read_records
from study.records.record import TrialRecord, flat_row
from study.records.study_files import read_object, read_settings
from study.records.timeline.file import Run, read_host_seconds, read_timeline
from study.records.units import UNITS, parse_bytes

RESTORE = "Restore the study.yaml that the run wrote."
GIVE = "Give the directory that a run of a study made; it holds study.yaml and results.jsonl."
REMOVE = "Remove the file: the report then leaves its section out."

_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", re.ASCII)


class StudyDirectoryError(UserError):
    """A study directory that cannot be read; the message has rule, value, remedy."""


@dataclass(frozen=True)
class Study:
    """A study as it lies in its directory; `settings` is its resolved study file."""

    name: str
    directory: Path
    objectives: tuple[Objective, ...]
    records: tuple[TrialRecord, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    memory_limit: float | None = None  # bytes, where the study set one
    cost: Mapping[str, Any] = field(default_factory=dict)  # of a study on cards: their hours and price
    set_aside: tuple[SetAside, ...] = ()  # lines of the results that hold no record that counts
    runs: tuple[Run, ...] = ()  # where the time of its processes went, the newest run last
    host_seconds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # of an older study, in its place


def load_study(directory: Path | str) -> Study:
    """Reads a study directory; safe at any moment of a running study.

    Lines of `results.jsonl` that hold no record are in `set_aside`, each with its reason; a last line that is torn is
    left out (still being written, or cut by a kill), and a later record of the same trial replaces an earlier one in
    its place. No results yet, or no provenance, is no error. Raises StudyDirectoryError for everything else that cannot
    be read.
    """
    directory = Path(directory)
    with _directory_errors():
        settings = read_settings(directory / STUDY_FILE, GIVE)
        found = read_records(directory / RESULTS_FILE)
        provenance, cost = (read_object(directory / name, REMOVE) for name in (PROVENANCE_FILE, COST_FILE))
        runs, host_seconds = read_timeline(directory, REMOVE), read_host_seconds(directory, REMOVE)
    return Study(
        name=_name(settings, directory),
        directory=directory,
        objectives=_objectives(settings.get("objectives"), directory / STUDY_FILE),
        records=found.records,
        provenance=provenance,
        settings=settings,
        memory_limit=_memory_limit(settings.get("hardware"), directory / STUDY_FILE),
        cost=cost,
        set_aside=found.set_aside,
        runs=runs,
        host_seconds=host_seconds,
    )


@contextmanager
def _directory_errors() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise StudyDirectoryError(str(error)) from error


def _name(settings: Mapping[str, Any], directory: Path) -> str:
    name = settings.get("name")
    return name if isinstance(name, str) and name else directory.resolve().name


def table(study: Study) -> list[dict[str, Any]]:
    """One flat row a trial: status, configuration, measurements, predictions.

    `pandas.DataFrame(table(study))` takes it. Predictions are named `predicted_...`, so they share no column with a
    measurement. Missing values are None.
    """
    return [flat_row(record) for record in study.records]


def parse_quantity(value: Any) -> float:
    """A number, or text such as `14.56 GiB`, as a number; of whole bytes where it has a unit.

    Raises ValueError for anything else, also for what is not finite.
    """
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else _parse_text(str(value))
    if not math.isfinite(number):
        raise ValueError(f"a quantity must be finite; it is {value!r}")
    return number


def _parse_text(text: str) -> float:
    if _NUMBER.fullmatch(text.strip()):
        return float(text)
    try:
        return float(parse_bytes(text))
    except ValueError as error:
        raise ValueError(f"a quantity is a number, with a unit of {', '.join(UNITS)} if any; it is {text!r}") from error


def _objectives(values: Any, file: Path) -> tuple[Objective, ...]:
    if not isinstance(values, list) or not 2 <= len(values) <= 4:
        found = len(values) if isinstance(values, list) else repr(values)
        raise StudyDirectoryError(f"{file}: objectives must be a list of 2 to 4; it is {found}. {RESTORE}")
    try:
        return tuple(_objective(value) for value in values)
    except (KeyError, TypeError, ValueError) as error:
        rule = "each objective has a known metric, a direction (minimize or maximize) and a reference value"
        raise StudyDirectoryError(f"{file}: {rule}; {error}. {RESTORE}") from error


def _objective(value: Mapping[str, Any]) -> Objective:
    if value["metric"] not in METRICS:
        raise ValueError(f"metric is {value['metric']!r}, not one of {', '.join(METRICS)}")
    if value["direction"] not in get_args(Direction):
        raise ValueError(f"direction is {value['direction']!r}")
    return Objective(value["metric"], value["direction"], parse_quantity(value["reference"]))


def _memory_limit(hardware: Any, file: Path) -> float | None:
    limit = hardware.get("memory_limit") if isinstance(hardware, dict) else None
    try:
        return None if limit is None else parse_quantity(limit)
    except ValueError as error:
        raise StudyDirectoryError(f"{file}: hardware.memory_limit: {error}. {RESTORE}") from error
