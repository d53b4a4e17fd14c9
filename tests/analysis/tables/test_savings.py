"""What early stopping saved."""

from __future__ import annotations

from dataclasses import replace

from analysis.load import Study
from analysis.tables.savings import savings_table
from tests.support.study_directory import MakeRecord


def test_stopped_trials_spare_the_steps_they_did_not_take(study: Study, record: MakeRecord) -> None:
    complete = [record(index, measurements={"train_steps": 12}) for index in range(2)]
    stopped = [record(index, status="stopped", measurements={"train_steps": 3}) for index in (2, 3)]
    table = savings_table(replace(study, records=(*complete, *stopped)))
    assert table is not None
    values = dict(table.rows)
    assert values["trials stopped"] == "2 of 4"
    assert values["steps that the stopped trials took"] == "6 of 24"
    assert values["steps not taken, of all"] == "37.5 %"  # 18 of 48
    assert savings_table(replace(study, records=tuple(complete))) is None
