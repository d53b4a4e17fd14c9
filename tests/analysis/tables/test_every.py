"""All tables: captions, headings, CSV, and what a study without results has."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from analysis.load import Study
from analysis.tables.every import TABLES


def test_every_table_has_a_caption_and_rows_of_its_headings(study: Study) -> None:
    for name, make in TABLES.items():
        if name == "importance":  # needs more trials, and has a test below
            continue
        table = make(study)
        assert table is not None, name
        assert table.name == name
        assert table.caption.endswith(".")
        assert {len(row) for row in table.rows} == {len(table.headings)}
        assert [tuple(row) for row in csv.reader(io.StringIO(table.to_csv()))] == [table.headings, *table.rows]


@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_study_without_results_has_none(name: str, study: Study) -> None:
    assert TABLES[name](replace(study, records=())) is None
