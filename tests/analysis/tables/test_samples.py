"""Samples in a table."""

from __future__ import annotations

from dataclasses import replace

from analysis.load import Study
from analysis.tables.samples import samples_table
from tests.support.study_directory import PROMPTS, MakeRecord


def test_samples_of_any_two_trials_stand_side_by_side(study: Study, record: MakeRecord) -> None:
    asked = {"prompt": "p", "base": "b", "tuned": "t", "reference": "r"}
    two = replace(study, records=(record(0, samples=[asked]), record(1, samples=[{**asked, "tuned": "u"}])))
    table = samples_table(two, ["t000", "t001"])
    assert table is not None
    assert [row[2] for row in table.rows] == ["r", "b", "t", "u"]
    front = samples_table(study)
    assert front is not None
    assert {row[0] for row in front.rows} == set(PROMPTS)
