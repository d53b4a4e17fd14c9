"""Where a study stands, from its directory alone, at any moment of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.load import StudyDirectoryError
from study.records.store import ResultsStore
from study.reporting.standing import standing_text
from tests.support.made_up_studies import make_config, make_record, write_study_file


def test_before_the_first_end_and_after_some(tmp_path: Path) -> None:
    write_study_file(tmp_path, search={"algorithm": "random", "trials": 5})
    assert standing_text(tmp_path) == "made-up: 0 of 5 trials ended"
    with ResultsStore(tmp_path) as store:
        store.append(make_record("t0", status="failed"))
        assert standing_text(tmp_path) == "made-up: 1 of 5 trials ended (1 failed)\n\nNo trial is complete yet."
        store.append(make_record("t1", make_config(rank=8)))
        store.append(make_record("t2", make_config("nf4", 2)))
    text = standing_text(tmp_path)
    assert text.startswith("made-up: 3 of 5 trials ended (2 complete, 1 failed)\n\nThe front so far:\n")
    assert "t1" in text
    assert "t2" in text


def test_a_grid_runs_every_seed(tmp_path: Path) -> None:
    write_study_file(tmp_path, search={"algorithm": "grid", "trials": 4}, seeds=[0, 1])
    assert standing_text(tmp_path) == "made-up: 0 of 8 trials ended"


def test_no_study_is_said(tmp_path: Path) -> None:
    with pytest.raises(StudyDirectoryError):
        standing_text(tmp_path)
