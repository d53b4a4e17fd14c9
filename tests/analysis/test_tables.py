"""Tables that answer a study's questions."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from analysis.load import Study
from analysis.tables import (
    TABLES,
    budgets_table,
    effects_table,
    importance_table,
    nf4_price_table,
    samples_table,
    savings_table,
    uncertainty_table,
)
from study.records.record import TrialRecord
from tests.support.study_directory import PROMPTS, MakeRecord


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


def test_effects_are_changes_in_percent_at_equal_everything_else(study: Study, record: MakeRecord) -> None:
    def of(index: int, precision: str, perplexity: float) -> object:
        return record(
            index, precision, measurements={"perplexity": perplexity, "peak_memory_bytes": 2 - (precision == "nf4")}
        )

    pair = replace(study, records=(of(0, "bf16", 10.0), of(1, "nf4", 11.0)))  # type: ignore[arg-type]
    table = nf4_price_table(pair)
    assert table is not None
    changes = {row[3]: row[4] for row in table.rows}
    assert changes["perplexity"] == "+10.0 %"
    assert changes["peak memory"] == "−50.0 %"
    assert {row[:3] for row in table.rows} == {("precision", "bf16", "nf4")}
    assert {row[5:] for row in table.rows} == {("–", "1", "–")}  # one pair has no interval
    assert effects_table(replace(study, records=(record(0),))) is None


def test_what_matters_has_a_column_for_each_thing_sampled(study: Study, record: MakeRecord) -> None:
    def made(index: int) -> TrialRecord:
        rank, rate = (4, 8, 16, 32)[index % 4], (1e-5, 1e-4, 1e-3)[index % 3]
        measurements = {"perplexity": 10 + 1e4 * abs(rate - 1e-4), "peak_memory_bytes": 1e6 * rank}
        return record(index, "nf4", rank, "q_v", rate, measurements=measurements)

    many = replace(study, records=tuple(map(made, range(36))))
    table = importance_table(many)
    assert table is not None
    assert table.headings == ("Objective", "Rank", "Learning rate")
    assert table.rows == (("Perplexity", "0 %", "100 %"), ("Peak memory", "100 %", "0 %"))
    assert importance_table(replace(many, records=many.records[:20])) is None


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


def test_samples_of_any_two_trials_stand_side_by_side(study: Study, record: MakeRecord) -> None:
    asked = {"prompt": "p", "base": "b", "tuned": "t", "reference": "r"}
    two = replace(study, records=(record(0, samples=[asked]), record(1, samples=[{**asked, "tuned": "u"}])))
    table = samples_table(two, ["t000", "t001"])
    assert table is not None
    assert [row[2] for row in table.rows] == ["r", "b", "t", "u"]
    front = samples_table(study)
    assert front is not None
    assert {row[0] for row in front.rows} == set(PROMPTS)


def test_budgets_name_what_to_take(study: Study) -> None:
    table = budgets_table(study)
    assert table is not None
    assert [row[0] for row in table.rows] == ["8.00 GiB", "12.00 GiB", "14.56 GiB", "24.00 GiB"]
