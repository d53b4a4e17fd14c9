"""Which configuration for which memory: one table for report, notebook and CSV."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from analysis.load import Study
from analysis.notebook import export_everything, show_table
from analysis.report.page import report_page
from analysis.tables.budgets import budgets_table
from analysis.tables.table import Table
from study.records.objectives import Objective
from tests.support.html_pages import HtmlPage
from tests.support.study_directory import GIB, MakeRecord, on_cards


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
    assert names[0] == "0.75 GiB (this study’s limit)"
    assert "1.25 GiB (this study’s)" not in names


def test_of_a_card_fragments_and_context_are_needed_too(study: Study) -> None:
    """t007's peak, 0.89 GiB, leaves room in 1.25 GiB; what a card must have for it, 1.48 GiB, does not."""
    table = budgets_table(on_cards(study))
    assert column(table, "Trial")[0] != column(budgets_table(study), "Trial")[0]
    plain, held = column(budgets_table(study), "It needs")[-1], column(table, "It needs")[-1]
    assert float(held.split()[0]) == pytest.approx(1.1 * float(plain.split()[0]) + 0.5, abs=0.01)
    assert table is not None
    assert "fragments in what it held at most, and CUDA’s context" in table.caption
    assert "fragments" not in (budgets_table(study) or table).caption


def test_a_memory_limit_bounds_the_process_without_the_context(study: Study) -> None:
    measured = on_cards(study)
    peak = min(one.measurements["peak_memory_bytes"] for one in study.records if one.status == "complete")
    for limit, fits in ((1.1 * peak + 1, True), (1.1 * peak - 1, False)):
        table = budgets_table(replace(measured, memory_limit=limit))
        assert column(table, "Configuration")[0].startswith("nothing fits") != fits
    assert "bounds the first two alone" in (table.caption if table else "")


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
