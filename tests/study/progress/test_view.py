"""A study's progress in words."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from study.progress import view
from study.progress.pace import Remaining
from study.progress.study_progress import StudyProgress
from study.records.objectives import Objective
from tests.support.made_up_studies import make_config, make_record
from trainables.protocol import ResidentStatus

OBJECTIVES = (Objective("perplexity", "minimize", 20.0), Objective("peak_memory_bytes", "minimize", 2**30))


@pytest.mark.parametrize(
    ("remaining", "text"),
    [
        (None, "time left unknown"),
        (Remaining(0.0, complete=True), "about 0 s left"),
        (Remaining(1.0, complete=True), "about 5 s left"),
        (Remaining(41.0, complete=False), "at least 45 s left"),
        (Remaining(57.0, complete=True), "about 1 min 00 s left"),
        (Remaining(121.0, complete=True), "about 2 min 10 s left"),
        (Remaining(3541.0, complete=True), "about 1 h 00 min left"),
        (Remaining(7300.0, complete=False), "at least 2 h 02 min left"),
    ],
)
def test_the_estimated_time_left_in_words(remaining: Remaining | None, text: str) -> None:
    assert view.remaining_text(remaining) == text


@given(st.floats(1e-3, 1e6))
def test_the_estimate_is_rounded_up(seconds: float) -> None:
    text = view.remaining_text(Remaining(seconds, complete=True))
    units = {"h": 3600, "min": 60, "s": 1}
    shown = sum(int(number.replace(",", "")) * units[unit] for number, unit in re.findall(r"([\d,]+) (h|min|s)", text))
    assert shown >= seconds
    assert shown <= seconds + max(60, 10)


def test_a_short_name_tells_configurations_apart() -> None:
    assert view.short_name(make_config("nf4", 64, learning_rate=2e-4)) == "nf4 r64 q_v 2e-4"
    assert view.short_name(None) == "–"


def test_ended_lines() -> None:
    accurate = make_record("t3", accuracy=0.512)
    assert view.ended_line(accurate, 8, 4) == (
        "[4/8] t3 complete: fp32, rank 8, q_v, learning rate 1e-3: "
        "perplexity 11 (base model 20), accuracy 51.2 %, 0.20 GiB, 410 tokens/s"
    )
    failed = make_record("t4", status="diverged")
    assert view.ended_line(failed, 8, 5).endswith("rank 8, q_v, learning rate 1e-3: made to be diverged")


def test_the_line_says_where_the_study_stands() -> None:
    progress = StudyProgress({"fp32": 4}, OBJECTIVES)
    progress.advance(0.0)
    assert view.line(progress) == "0 of 4 trials ended; waiting for the base model; 0 s elapsed, time left unknown"
    at_work = {
        "t0": ResidentStatus("t0", "training", 2, 10, pack_size=2),
        "t1": ResidentStatus("t1", "training", 4, 10, pack_size=2),
        "t2": ResidentStatus("t2", "measuring", 0, 10),
    }
    progress.note_statuses(at_work, 10.0)
    progress.note_record(make_record("t3"), 60.0)
    line = view.line(progress)
    assert line.endswith(" left")
    assert line.startswith(
        "1 of 4 trials ended (1 complete); 2 training (30 %), 1 measuring; 2 adapters together; "
        "nothing heard of the trials for 50 s; 1 min 00 s elapsed, about "
    )


def test_the_table_has_a_row_for_each_trial_at_work_and_the_best_below() -> None:
    progress = StudyProgress({"fp32": 3}, OBJECTIVES)
    progress.note_started("t0", make_config(rank=8))
    progress.note_statuses(
        {
            "t0": ResidentStatus("t0", "training", 2, 10, 2.345, 14.25, 3, 410.0, 300 * 2**20),
            "t1": ResidentStatus("t1", "measuring", 0, 10),
        },
        1.0,
    )
    progress.note_record(make_record("t2", make_config(rank=2)), 2.0)
    out = io.StringIO()
    Console(file=out, width=160).print(view.table(progress))
    rows = {line.split("│")[1].strip(): line for line in out.getvalue().splitlines() if line.startswith("│")}
    assert [cell.strip() for cell in rows["t0"].split("│")[1:-1]] == [
        "t0", "fp32 r8 q_v 1e-3", "training", "2/10", "2.345", "14.25", "3 together", "410", "0.29 GiB",
    ]  # fmt: skip
    assert [cell.strip() for cell in rows["t1"].split("│")[1:-1]] == [
        "t1", "–", "measuring", "0/10", "–", "–", "alone", "–", "–",
    ]  # fmt: skip
    assert "1 of 3 trials ended (1 complete)" in out.getvalue()
    assert "best so far: fp32 r2 q_v 1e-3, perplexity 14" in out.getvalue()


def test_names_with_markup_are_shown_as_they_are() -> None:
    progress = StudyProgress(1, OBJECTIVES)
    progress.note_statuses({"[red]t0": ResidentStatus("[red]t0", "training", 1, 2)}, 0.0)
    out = io.StringIO()
    Console(file=out, width=160).print(view.table(progress))
    assert "[red]t0" in out.getvalue()
