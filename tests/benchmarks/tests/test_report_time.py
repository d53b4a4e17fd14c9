"""The report's benchmark: its study is what it says, its parts are timed, and its table tells them."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.load import load_study
from analysis.pareto import front
from tests.benchmarks.report_time import ReportTime, parts, text_of
from tests.benchmarks.support.report_study import FRONT_SHARE, write_report_study


@pytest.mark.parametrize("trials", [1, 8, 80])
def test_the_study_has_its_trials_and_its_front(tmp_path: Path, trials: int) -> None:
    study = load_study(write_report_study(tmp_path / "study", trials))
    assert len(study.records) == trials
    assert len({record.trial_id for record in study.records}) == trials
    assert len(front(study.records, study.objectives)) == max(1, round(FRONT_SHARE * trials))
    assert study.set_aside == ()


def test_it_is_the_same_every_time(tmp_path: Path) -> None:
    one, two = (write_report_study(tmp_path / name, 5) / "results.jsonl" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_every_part_is_timed(tmp_path: Path) -> None:
    found = parts(write_report_study(tmp_path / "study", 8))
    assert {"imports", "records", "whole page", "figure: front", "table: uncertainty"} <= set(found)
    assert min(found.values()) >= 0


def test_the_table_leaves_out_what_takes_no_time() -> None:
    found = [
        ReportTime(8, 2.5, 0.5, 2.0, {"imports": 0.2, "records": 0.001}),
        ReportTime(10_000, 12.0, 10.0, 2.0, {"imports": 0.2, "records": 1.5, "table: savings": 0.001}),
    ]
    lines = text_of(found).splitlines()
    assert [line.split() for line in lines[1:3]] == [
        ["8", "2.50", "s", "0.50", "s", "2.00", "s", "0.25"],
        ["10,000", "12.00", "s", "10.00", "s", "2.00", "s", "5.00"],
    ]
    assert [line.strip().split("  ")[0] for line in lines[4:]] == ["part, processor time", "imports", "records"]
