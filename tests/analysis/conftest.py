"""A made-up study, as records, as a directory, and loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from analysis.load import Study, load_study
from study.records.objectives import Objective
from study.records.record import TrialRecord
from tests.support.study_directory import (
    GIB,
    PROVENANCE,
    MakeRecord,
    WriteStudy,
    made_up_records,
    make_record,
    study_settings,
)


@pytest.fixture
def record() -> MakeRecord:
    """Makes one record."""
    return make_record


@pytest.fixture
def write_study(tmp_path: Path) -> WriteStudy:
    """Writes a study directory, of the made-up records unless others are given."""

    def write(records: Sequence[TrialRecord] | None = None, tail: str = "", **settings: Any) -> Path:
        directory = tmp_path / "made-up"
        directory.mkdir(exist_ok=True)
        (directory / "study.yaml").write_text(yaml.safe_dump(study_settings(**settings)), encoding="utf-8")
        (directory / "provenance.json").write_text(json.dumps(PROVENANCE), encoding="utf-8")
        lines = "".join(each.to_json() + "\n" for each in (made_up_records() if records is None else records))
        (directory / "results.jsonl").write_text(lines + tail, encoding="utf-8")
        return directory

    return write


@pytest.fixture
def study(write_study: WriteStudy) -> Study:
    """The made-up study, loaded."""
    return load_study(write_study())


@pytest.fixture
def objectives() -> tuple[Objective, ...]:
    """Perplexity and memory."""
    return (Objective("perplexity", "minimize", 30.0), Objective("peak_memory_bytes", "minimize", 1.25 * GIB))
