"""Small records, the lines that a results store keeps them as, and what a reader finds."""

from __future__ import annotations

from pathlib import Path

from search_spaces.trial_config import TrialConfig
from study.records.record import TrialRecord
from study.records.store import ResultsStore


def record(trial_id: str, **values: object) -> TrialRecord:
    """A complete trial's record; `values` replace its fields."""
    config = TrialConfig("nf4", 8, 16, 0.05, ("q_proj", "v_proj"), 2e-4)
    return TrialRecord(**{"study": "s", "trial_id": trial_id, "status": "complete", "config": config, **values})


def line(trial_id: str, **values: object) -> bytes:
    """The record's line in the results file, its line feed included."""
    return record(trial_id, **values).to_json().encode() + b"\n"


def ids(directory: Path) -> list[str]:
    """The trials whose records a reader of the directory finds."""
    return [one.trial_id for one in ResultsStore(directory).records()]
