"""Keeps what a study's trials depend on, in `basis.json`: data, base model, training settings, engine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from study.config.study_config import StudyConfig
from study.json_checks import fields, items, number, one_of, optional, text
from study.plan.preflight import Preflight
from study.records.files import write_whole
from study.records.layout import BASIS_FILE, directory_error
from study.records.record import TrialRecord
from trainables.base_model.location import locate
from trainables.comparability import BASE_WEIGHTS, DATA, state_basis
from trainables.guarded_files import FileRefusedError, read_json

START, RECORDS, LATER = "start", "records", "later"  # since when a basis is known
MOST_BYTES = 2**20
BASE_CONFIG = "base_model.config"
_FACTS = {
    "rows": fields({}, others=number(low=0, whole=True)),
    "dataset": fields({}),
    "tokenizer": optional(text()),
    "base_model": fields({"path": text(), "kind": text()}),
}
_BASIS = fields(
    {
        "states": fields({BASE_WEIGHTS: text(), DATA: text()}),
        "facts": fields(_FACTS),
        "since": one_of((START, RECORDS, LATER)),
        "changes": items(fields({}, others=fields({}, required=("was", "now")))),
    },
    required=("states", "facts", "since", "changes"),
)
_NOT_THE_MODEL = ("transformers_version", "_name_or_path")  # of config.json: they change nothing that is computed


@dataclass(frozen=True)
class Basis:
    """What a study's trials depend on.

    `states` is what their states name too (`trainables.comparability.state_basis`); `facts` help to say what has
    changed; `changes` are the changed data that were accepted, as the states' names with `was` and `now`.
    """

    states: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)
    since: str = START
    changes: tuple[Mapping[str, Any], ...] = ()

    @property
    def takes_unnamed(self) -> bool:
        """Whether a checkpoint that names no basis may be continued: an earlier version wrote it, on the same data."""
        return self.since != START and not self.changes


def basis_of(config: StudyConfig, found: Preflight) -> Basis:
    """Returns what a study depends on now, of its checked model and data."""
    states = state_basis(found.sha256, found.fingerprint, config.trial)
    facts = {
        "rows": {name: split["rows"] for name, split in found.statistics.items()},
        "dataset": asdict(config.trial.dataset),
        "tokenizer": found.tokenizer_sha256,
        "base_model": {"path": config.trial.base_model.path, "kind": locate(config.trial.base_model).kind},
    }
    as_read = json.loads(json.dumps([{**states, BASE_CONFIG: _config_hash(config)}, facts]))  # a tuple becomes a list
    return Basis(*as_read)


def _config_hash(config: StudyConfig) -> str:
    """The hash of the values in a model folder's config.json; a hub's commit and a `.gguf` file are hashed whole."""
    files = locate(config.trial.base_model)
    if files.kind != "folder":
        return ""
    values = read_json(Path(files.path) / "config.json")
    kept = {name: value for name, value in values.items() if name not in _NOT_THE_MODEL}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def basis_of_records(records: Sequence[TrialRecord]) -> Basis:
    """Returns what is known from records alone, of a study that an earlier version began: data and base model."""
    for record in reversed(records):
        sha256, fingerprint = record.base_model.get("sha256"), record.dataset.get("fingerprint")
        if sha256 and fingerprint:
            statistics = record.dataset.get("statistics") or {}
            rows = {name: split.get("rows") for name, split in statistics.items()}
            return Basis({BASE_WEIGHTS: sha256, DATA: fingerprint}, {"rows": rows}, RECORDS)
    return Basis({}, {}, LATER)


def write_basis(directory: Path, basis: Basis) -> Path:
    """Writes a study's basis into its directory, whole or not at all, and returns the file's path."""
    return write_whole(directory / BASIS_FILE, json.dumps(asdict(basis), indent=1) + "\n")


def read_basis(directory: Path) -> Basis | None:
    """Reads a study's basis; None where there is none. Raises ConfigError where the file does not hold one."""
    file = directory / BASIS_FILE
    try:
        values = read_json(file, MOST_BYTES)
        wrong = _BASIS(values, "")
    except FileNotFoundError:
        return None
    except FileRefusedError as error:
        wrong = error.found
    except OSError as error:
        wrong = error.strerror or str(error)
    if wrong:
        rule = f"must hold what the study wrote there when it began; it does not ({wrong})"
        remedy = "Restore it, or remove it: the study's records are then compared with what is there now."
        raise directory_error(file, rule, remedy)
    return Basis(values["states"], values["facts"], values["since"], tuple(values["changes"]))
