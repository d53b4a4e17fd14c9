"""Which configuration for which memory: one table for report, notebook and CSV."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from analysis.load import Study
from analysis.notebook import export_everything, show_table
from analysis.report.page import report_page
from analysis.tables.budgets import budgets_table
from analysis.tables.table import Table
from study.records.objectives import Objective
from tests.support.html_pages import HtmlPage
from tests.support.study_directory import GIB, MakeRecord


def column(table: Table | None, heading: str) -> list[str]:
    assert table is not None
    return [row[table.headings.index(heading)] for row in table.rows]


def test_the_usual_budgets_and_the_studys_own_are_there(study: Study) -> None:
    table = budgets_table(study)
    names = ["1.25 GiB (this study’s)", "8 GiB", "12 GiB", "14.56 GiB (a T4)", "24 GiB"]
    assert column(table, "Memory there is") == names
    assert column(table, "Trial") == ["t007", "t003", "t003", "t003", "t003"]
    assert column(table, "Against the best") == ["7.35 % worse", *["the best"] * 4]
    assert column(table, "It leaves")[0] == "0.36 GiB"
    assert table is not None
    assert "within 2 % of the best perplexity that fits" in table.caption


def test_the_studys_memory_limit_counts_before_its_reference(study: Study) -> None:
    names = column(budgets_table(replace(study, memory_limit=0.75 * GIB)), "Memory there is")
    assert names[0] == "0.75 GiB (this study’s)"
    assert "1.25 GiB (this study’s)" not in names


def test_a_budget_that_nothing_fits_says_what_the_smallest_needs(study: Study) -> None:
    table = budgets_table(replace(study, memory_limit=0.5 * GIB))
    assert column(table, "Configuration")[0] == "nothing fits; the smallest needs 0.63 GiB"


def test_a_studys_budget_that_is_a_usual_one_stands_once(study: Study) -> None:
    names = column(budgets_table(replace(study, memory_limit=8.0 * GIB)), "Memory there is")
    assert names == ["8 GiB", "12 GiB", "14.56 GiB (a T4)", "24 GiB"]


def test_budgets_without_a_memory_objective(study: Study) -> None:
    objectives = (Objective("accuracy", "maximize", 0.3), Objective("seconds_per_epoch", "minimize", 60.0))
    table = budgets_table(replace(study, objectives=objectives))
    assert column(table, "Memory there is") == ["8 GiB", "12 GiB", "14.56 GiB (a T4)", "24 GiB"]
    assert column(table, "Answer accuracy")[0].endswith(" %")


def test_no_budget_without_a_complete_trial(study: Study, record: MakeRecord) -> None:
    assert budgets_table(replace(study, records=(record(status="stopped"),))) is None


def test_report_notebook_and_csv_show_the_same_rows(study: Study, tmp_path: Path) -> None:
    limited = replace(study, memory_limit=0.75 * GIB)
    table = budgets_table(limited)
    assert table is not None
    export_everything(limited, tmp_path)
    assert (tmp_path / "budgets.csv").read_bytes() == table.to_csv().encode()
    pages = (report_page(limited), show_table(table)._repr_mimebundle_()["text/html"])
    for text in (HtmlPage(markup).text for markup in pages):
        for row in table.rows:
            assert "".join(row) in text
