"""Reading a study directory: its objectives, its records, and where they came from."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import yaml

from study.records.objectives import METRICS, Direction, Objective
from study.records.record import MEASUREMENTS, TrialRecord

SETTINGS_FILE = "study.yaml"
PROVENANCE_FILE = "provenance.json"
COST_FILE = "cost.json"
RESULTS_FILE = "results.jsonl"
RESTORE = "Restore the study.yaml that the run wrote."
INFEASIBLE = ("phase", "requested_bytes", "available_bytes", "source")

UNITS: dict[str, int] = {
    "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_BY_NAME = {name.lower(): size for name, size in UNITS.items()}
_QUANTITY = re.compile(r"([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z]*)", re.ASCII)


class StudyDirectoryError(ValueError):
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
    settings = _read_settings(directory / SETTINGS_FILE)
    return Study(
        name=str(settings.get("name") or directory.resolve().name),
        directory=directory,
        objectives=_objectives(settings.get("objectives"), directory / SETTINGS_FILE),
        records=_read_records(directory / RESULTS_FILE),
        provenance=_read_mapping(directory / PROVENANCE_FILE),
        settings=settings,
        memory_limit=_memory_limit(settings.get("hardware"), directory / SETTINGS_FILE),
        cost=_read_mapping(directory / COST_FILE),
    )


def table(study: Study) -> list[dict[str, Any]]:
    """One flat row a trial: status, configuration, measurements, predictions.

    `pandas.DataFrame(table(study))` takes it. Predictions are named `predicted_...`, so they share no column with a
    measurement. Missing values are None.
    """
    return [_flat_row(record) for record in study.records]


def parse_quantity(value: Any) -> float:
    """A number, or text such as `14.56 GiB`, as a number; of whole bytes where it has a unit.

    Raises ValueError for anything else, also for what is not finite.
    """
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else _parse_text(str(value))
    if not math.isfinite(number):
        raise ValueError(f"a quantity must be finite; it is {value!r}")
    return number


def _parse_text(text: str) -> float:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or (match[2] and match[2].lower() not in _BY_NAME):
        raise ValueError(f"a quantity is a number, with a unit of {', '.join(UNITS)} if any; it is {text!r}")
    number = float(match[1]) * (_BY_NAME[match[2].lower()] if match[2] else 1)
    return float(round(number)) if match[2] and math.isfinite(number) else number


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
    if not file.exists():
        return ()
    # Split at line feeds only: texts from models hold other line separators (U+2028), which JSON leaves as they are.
    try:
        content = file.read_bytes()
    except OSError as error:
        raise StudyDirectoryError(f"{file} must be readable: {error}. Give it back to its owner.") from error
    lines = [(number, line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip()]
    records: dict[str, TrialRecord] = {}
    for position, (number, line) in enumerate(lines):
        is_last = position == len(lines) - 1
        record = _record(line, f"{file}, line {number}", may_be_torn=is_last)
        if record is not None:
            records[record.trial_id] = record
    return tuple(records.values())


def _record(line: bytes, where: str, may_be_torn: bool) -> TrialRecord | None:
    rule, remedy = "a line must be one trial record as JSON", "Remove that line; `resume` runs its trial again."
    try:
        record = TrialRecord.from_json(line.decode("utf-8"))
        _check_numbers(record)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        if may_be_torn:
            return None
        raise StudyDirectoryError(f"{where}: {rule}; {error}. {remedy}") from error
    except KeyError as error:
        raise StudyDirectoryError(f"{where}: {rule}; it has no {error}. {remedy}") from error
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise StudyDirectoryError(f"{where}: {rule}; {error}. {remedy}") from error
    return record


def _check_numbers(record: TrialRecord) -> None:
    predicted = {"predicted peak_memory_bytes": record.predictions.get("peak_memory_bytes")}
    for name, value in {**record.measurements, **predicted}.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{name} must be a number or null; it is {value!r}")


def _flat_row(record: TrialRecord) -> dict[str, Any]:
    infeasible = record.infeasible or {}
    return {
        "trial_id": record.trial_id,
        "status": record.status,
        "reason": record.reason,
        "error": record.error,
        **record.config.to_dict(),
        "target_modules": record.config.target_set,
        **{name: record.measurements.get(name) for name in MEASUREMENTS},
        **{f"predicted_{name}": value for name, value in record.predictions.items()},
        **{f"infeasible_{name}": infeasible.get(name) for name in INFEASIBLE},
        "device": record.device.get("name"),
        "compute_dtype": record.device.get("compute_dtype"),
        "memory_source": record.device.get("memory_source"),
        "adapter": record.adapter,
    }
