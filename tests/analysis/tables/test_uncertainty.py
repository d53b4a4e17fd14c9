"""How sure the front is, with documents and without."""

from __future__ import annotations

from dataclasses import replace

from analysis.load import Study
from analysis.tables.uncertainty import uncertainty_table
from tests.support.study_directory import MakeRecord


def test_members_of_the_front_are_named_with_how_sure_they_are(study: Study) -> None:
    table = uncertainty_table(study)
    assert table is not None
    shown = {row[0]: row for row in table.rows}
    assert {row[2] for row in table.rows} == {"yes", "no"}
    assert all(row[3] == "100 %" for row in shown.values() if row[2] == "yes")  # one seed, no documents: nothing varies
    assert shown["t000"][-1] == "1.06 GiB"


def test_documents_make_the_interval_and_other_documents_no_table(study: Study, record: MakeRecord) -> None:
    rows = {"nats": [3.0, 9.0, 4.0], "tokens": [2, 2, 2]}
    one = record(0, eval_rows=rows)
    table = uncertainty_table(replace(study, records=(one,)))
    assert table is not None
    assert " to " in table.rows[0][4]
    other = record(1, eval_rows={"nats": [3.0], "tokens": [2]})
    assert uncertainty_table(replace(study, records=(one, other))) is None
