"""The report's tables: what stands in them, in which order, and what happened to trials that did not complete."""

from __future__ import annotations

import re
from dataclasses import replace

from analysis.load import Study
from analysis.pareto import front
from analysis.report.trial_tables import (
    OTHERS_OPEN,
    front_table,
    measurement_columns,
    trials_table,
)
from analysis.statistics.bootstrap import Interval
from analysis.wording import hypervolume_words
from tests.support.study_directory import MakeRecord


def _cells(markup: str) -> list[list[str]]:
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", markup, re.S)
    return [
        [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.S)] for row in rows
    ]


def _column(markup: str, heading: str) -> list[str]:
    headings, *rows = _cells(markup)
    return [row[headings.index(heading)] for row in rows]


# -- the front ---------------------------------------------------------------------------------------------------------


def test_the_front_table_is_cheapest_first_with_change_and_volume(study: Study) -> None:
    markup = front_table(study, front(study.records, study.objectives))
    assert _column(markup, "Trial") == ["t004", "t008", "t006", "t005", "t007", "t003"]
    assert _column(markup, "Change")[0] == "−27.9 %"
    assert _column(markup, "Peak memory")[-1] == "1.32 GiB"
    assert (
        "Hypervolume 9.854 (perplexity × GiB), up to the reference point perplexity 30, peak memory 1.25 GiB." in markup
    )


def test_a_hypervolume_of_nothing_says_why(study: Study) -> None:
    words = hypervolume_words(study.objectives, 0.0, Interval(0.0, 0.0, 2.0**31))
    assert words == (
        "Hypervolume 0 (perplexity × GiB), 95 % interval 0 to 2, up to the reference point perplexity 30, peak memory "
        "1.25 GiB. No trial is better than that in every objective."
    )


def test_an_empty_front_is_said(study: Study) -> None:
    assert "The front is empty" in front_table(study, [])


def test_measurements_that_no_trial_has_get_no_column(record: MakeRecord) -> None:
    headings = [column.heading for column in measurement_columns([record(measurements={"accuracy": None})])]
    assert "Accuracy" not in headings
    assert "Energy" not in headings
    assert "Test perplexity" in headings
    none = [column.heading for column in measurement_columns([])]
    assert none == ["Perplexity", "Peak memory", "Train tokens/s", "Gen. tokens/s", "Time per epoch"]


# -- all trials --------------------------------------------------------------------------------------------------------


def test_every_trial_has_a_row_and_the_front_stands_out(study: Study) -> None:
    markup = trials_table(study, front(study.records, study.objectives)).split("<details")[0]
    assert _column(markup, "Trial") == [f"t{i:03}" for i in range(16)]
    assert _column(markup, "Status")[2:4] == ["complete", "complete★"]
    assert _column(markup, "Steps")[11] == "3"
    assert markup.count('class="member"') == 6


def test_what_happened_stands_in_words(study: Study) -> None:
    markup = trials_table(study, []).split('<details class="others"')[1]
    happened = dict(zip(_column(markup, "Trial"), _column(markup, "What happened"), strict=True))
    assert happened["t011"] == "dominated at rung 3"
    assert happened["t013"] == (
        "does not fit: it needs 2.15 GiB, and one NVIDIA T4 can hold 1.4 GiB, as predicted; most is needed at loss"
    )
    assert happened["t015"].startswith(
        "its host died 5 times; ValueError: &lt;b&gt;bad&lt;/b&gt; &lt;/script&gt; &amp; worse"
    )
    assert "Traceback (most recent call last)" in happened["t015"]  # folded under it
    assert "What happened to the 5 that did not complete" in markup
    assert markup.startswith(" open>")


def test_a_complete_study_has_nothing_to_explain(study: Study, record: MakeRecord) -> None:
    assert "did not complete" not in trials_table(replace(study, records=(record(),)), [])
    assert "No trial has ended yet." in trials_table(replace(study, records=()), [])


def test_many_unhappy_ends_are_folded(study: Study, record: MakeRecord) -> None:
    many = tuple(record(i, status="stopped", reason="dominated") for i in range(OTHERS_OPEN + 1))
    assert '<details class="others"><summary>' in trials_table(replace(study, records=many), [])
