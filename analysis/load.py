"""Reads a study directory: its settings, objectives and records, and where they came from."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import yaml

from study.errors import UserError
from study.records.flat_row import flat_row
from study.records.layout import COST_FILE, PROVENANCE_FILE, RESULTS_FILE, STUDY_FILE
from study.records.lines import Line, LineError, read_lines
from study.records.objectives import METRICS, Direction, Objective
from study.records.record import TrialRecord
from study.records.units import UNITS, parse_bytes

RESTORE = "Restore the study.yaml that the run wrote."

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


def load_study(directory: Path | str) -> Study:
    """Reads a study directory; safe at any moment of a running study.

    A last line of `results.jsonl` that is torn (still being written, or cut by a kill) is left out, and a later record
    of the same trial replaces an earlier one in its place. No results yet, or no provenance, is no error. Raises
    StudyDirectoryError for everything else that cannot be read.
    """
    directory = Path(directory)
    settings = _read_settings(directory / STUDY_FILE)
    return Study(
        name=str(settings.get("name") or directory.resolve().name),
        directory=directory,
        objectives=_objectives(settings.get("objectives"), directory / STUDY_FILE),
        records=_read_records(directory / RESULTS_FILE),
        provenance=_read_mapping(directory / PROVENANCE_FILE),
        settings=settings,
        memory_limit=_memory_limit(settings.get("hardware"), directory / STUDY_FILE),
        cost=_read_mapping(directory / COST_FILE),
    )


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


def _read_text(file: Path, remedy: str) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise StudyDirectoryError(f"{file} is missing. {remedy}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyDirectoryError(f"{file} must be readable UTF-8 text: {error}. {remedy}") from error


def _read_settings(file: Path) -> dict[str, Any]:
    remedy = "Give the directory that a run of a study made; it holds study.yaml and results.jsonl."
    text = _read_text(file, remedy)
    try:
        settings = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise StudyDirectoryError(f"{file} must be YAML: {error}. {remedy}") from error
    if not isinstance(settings, dict):
        raise StudyDirectoryError(f"{file} must hold keys and values; it holds {type(settings).__name__}. {remedy}")
    return settings


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


def _read_mapping(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    remedy = "Remove the file: the report then leaves its section out."
    text = _read_text(file, remedy)
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise StudyDirectoryError(f"{file} must be JSON: {error}. {remedy}") from error
    if not isinstance(values, dict):
        raise StudyDirectoryError(f"{file} must hold a JSON object; it holds {type(values).__name__}. {remedy}")
    return values


def _read_records(file: Path) -> tuple[TrialRecord, ...]:
    try:
        lines = list(read_lines(file.read_bytes())) if file.exists() else []
    except OSError as error:
        raise StudyDirectoryError(f"{file} must be readable: {error}. Give it back to its owner.") from error
    except LineError as error:
        raise _not_a_record(file, error.number, error.reason) from error
    # Only the last line may be torn: it is being written, or was cut by a kill.
    torn = next((line for line in lines[:-1] if line.record is None), None)
    if torn is not None:
        raise _not_a_record(file, torn.number, torn.fault)
    return _latest(lines)


def _latest(lines: Sequence[Line]) -> tuple[TrialRecord, ...]:
    """The records, the later of two of one trial in the place of the earlier."""
    return tuple({line.record.trial_id: line.record for line in lines if line.record is not None}.values())


def _not_a_record(file: Path, number: int, reason: str) -> StudyDirectoryError:
    rule = "a line must be one trial record as JSON"
    remedy = "Remove that line; `resume` runs its trial again."
    return StudyDirectoryError(f"{file}, line {number}: {rule}; {reason}. {remedy}")
