"""The report's time line: its bars, its sentence, and what is there for studies without one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from analysis.load import Study, StudyDirectoryError, load_study
from analysis.report.page import report_page
from analysis.report.timeline import MOST_BARS, MOST_HOSTS, MOST_ROWS, processes, rows, shown_run, timeline
from study.records.timeline.file import write_timeline
from study.records.timeline.milestones import Stage
from tests.support.study_directory import WriteStudy

HOST = "host 1 nf4 on card 0 of n"
RUN = (
    Stage.whole("driver", "checks", 100, 104),
    Stage.whole("driver", "first line", 104, 104),
    Stage.whole("driver", "trials in nf4", 104, 120),
    Stage.whole("trial t000", "joining", 105, 110),
    Stage.whole("trial t001", "joining", 106, 110),
    Stage.whole(HOST, "base model", 106, 110),
    Stage.whole(HOST, "base model / reading", 106, 108),
    Stage.whole(HOST, "measuring", 110, 112),
    Stage(HOST, "training", 112, 120, 6.0, 60),
    Stage(HOST, "evaluating", 113, 120, 2.0, 6),
)


def test_the_sentence_says_where_the_time_went_and_when_the_first_step_came(study: Study) -> None:
    markup = str(timeline(replace(study, runs=(RUN,))))
    assert "Of 20 s, 39 % went into training and evaluating; the rest: " in markup
    for words in ("checks 20 %", "starting and loading hosts 20 %", "measuring costs 10 %"):
        assert words in markup
    assert "The first line came after 4 s, the first packed step began after 12 s." in markup


def test_each_process_has_a_lane_and_trials_share_one() -> None:
    lanes = {row.process: row for row in processes(RUN)}
    assert list(lanes) == ["driver", "trials", HOST]
    assert [bar.title for bar in lanes[HOST].bars][:2] == ["base model: 4.0 s", "measuring: 2.0 s"]
    assert [bar.kind for bar in lanes[HOST].bars] == ["", "measuring", "work faint", "work faint"]
    assert [bar.kind for bar in lanes["driver"].bars] == ["", "moment", "faint"]
    measuring = lanes[HOST].bars[1]
    assert (measuring.left, measuring.width) == (pytest.approx(50), pytest.approx(10))


def test_each_stage_has_a_row_with_its_seconds_also_parts_of_stages() -> None:
    found = {(row.process, row.stage): (row.began, row.ended, row.seconds) for row in rows(RUN)}
    assert found["trials", "joining"] == (5, 10, 9)
    assert found[HOST, "base model / reading"] == (6, 8, 2)
    assert found[HOST, "training"] == (12, 20, 6)
    assert len(found) == 9


def test_bars_lie_within_their_lane_whatever_the_clocks_say() -> None:
    early = Stage.whole(HOST, "imports", 10, 90)  # before the command, by another machine's clock
    for row in [*processes([*RUN, early]), *rows([*RUN, early])]:
        for bar in row.bars:
            assert 0 <= bar.left <= bar.left + bar.width <= 100 + 1e-9


def test_the_newest_run_that_trained_is_shown(study: Study) -> None:
    aborted = (Stage.whole("driver", "checks", 500, 501),)
    assert shown_run((RUN, aborted)) == RUN
    assert shown_run((aborted,)) == aborted
    assert shown_run(()) == ()
    assert "in 2 parts" in str(timeline(replace(study, runs=(RUN, aborted))))
    assert "Of 1 s, 0 % went into" in str(timeline(replace(study, runs=(aborted,))))


def test_a_large_study_stays_readable(study: Study) -> None:
    hosts = [Stage.whole(f"host {n} nf4 on card {n} of n", "training", n, n + 500) for n in range(40)]
    many = [Stage.whole(f"{n}", f"{n}", n, n + 1) for n in range(500)]
    steps = [Stage.whole("driver", "checks", n, n + 0.5) for n in range(500)]
    run = [*hosts, *many, *steps]
    assert len([row for row in processes(run) if row.process.startswith("host")]) == MOST_HOSTS
    assert max(len(processes(run)), len(rows(run))) <= MOST_ROWS
    assert max(len(row.bars) for row in processes(run)) <= MOST_BARS
    assert f"The first {MOST_HOSTS} of 40 hosts are shown." in str(timeline(replace(study, runs=(tuple(run),))))


def test_names_are_escaped(study: Study) -> None:
    hostile = Stage.whole("<script>", '"><b onclick="x">', 100, 101)
    markup = str(timeline(replace(study, runs=((hostile, *RUN),))))
    assert "<script>" not in markup
    assert "<b onclick" not in markup


def test_a_run_without_length_is_no_fault(study: Study) -> None:
    assert "Of 0 s" in str(timeline(replace(study, runs=((Stage.whole("driver", "checks", 5, 5),),))))


def test_the_page_has_the_part_where_the_directory_has_a_time_line(write_study: WriteStudy) -> None:
    directory = write_study()
    assert 'id="timeline"' not in report_page(load_study(directory))
    write_timeline(directory, RUN)
    page = report_page(load_study(directory))
    assert '<section id="timeline">\n<h2>Where the time went</h2>' in page
    assert '<a href="#timeline">' in page


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (
            {"1 nf4 on cpu of n": {"training": 3.25, "waiting": 1, "all": 4.25}},
            ("3.2", "1 nf4 on cpu", "first packed step"),
        ),
        ({"a": {"training": "x", "all": 1}, "b": [], "c": {"waiting": float("nan")}}, ("1.0",)),
    ],
)
def test_an_older_studys_host_seconds_are_a_table(write_study: WriteStudy, values: Any, texts: Sequence[str]) -> None:
    directory = write_study()
    (directory / "host_seconds.json").write_text(json.dumps(values), encoding="utf-8")
    markup = str(timeline(load_study(directory)))
    for text in texts:
        assert text in markup


def test_a_broken_time_line_is_refused_with_its_remedy(write_study: WriteStudy) -> None:
    directory = write_study()
    (directory / "timeline.json").write_text("[", encoding="utf-8")
    with pytest.raises(StudyDirectoryError, match=r"timeline\.json.*Remove the file"):
        load_study(directory)
