"""The live table: its lines without a terminal, and that a slow or failing poll disturbs nothing."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Mapping

import pytest
from rich.console import Console

from study.progress.live_table import LiveTable
from study.progress.study_progress import StudyProgress
from study.records.objectives import Objective
from tests.support.made_up_studies import make_config, make_record
from trainables.protocol import ResidentStatus

OBJECTIVES = (Objective("perplexity", "minimize", 20.0), Objective("peak_memory_bytes", "minimize", 2**30))


def training(trial_id: str, step: int = 3, pack_size: int = 1) -> ResidentStatus:
    return ResidentStatus(trial_id, "training", step, 10, 2.5, 14.2, pack_size, 410.0, 300 * 2**20)


def wait_until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.005)


def no_terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=False)


def test_without_a_terminal_there_are_lines_now_and_then_and_one_for_each_end() -> None:
    lines: list[str] = []
    said: Mapping[str, ResidentStatus] = {"t0": training("t0", pack_size=3)}
    table = LiveTable(
        StudyProgress(2, OBJECTIVES), lambda: said, lines.append, no_terminal(), poll_seconds=0.005, line_seconds=0.02
    )
    with table:
        wait_until(lambda: len(lines) >= 2)
        table.note_record(make_record("t0"))
        wait_until(lambda: any("1 of 2 trials ended" in line for line in lines))
    assert "0 of 2 trials ended; 1 training (30 %); 3 adapters together" in lines[0]
    ends = [line for line in lines if line.startswith("[1/2] t0 complete: fp32, rank 8, q_v")]
    assert len(ends) == 1
    assert "perplexity 11 (base model 20), 0.20 GiB, 410" in ends[0]


def test_a_quick_study_prints_no_lines_but_its_ends() -> None:
    lines: list[str] = []
    with LiveTable(StudyProgress(1, OBJECTIVES), dict, lines.append, no_terminal(), poll_seconds=0.001) as table:
        time.sleep(0.05)
        table.note_record(make_record("t0"))
    assert len(lines) == 1


def test_a_failing_poll_is_asked_again() -> None:
    lines: list[str] = []
    calls: list[int] = []

    def statuses() -> Mapping[str, ResidentStatus]:
        calls.append(1)
        if len(calls) < 4:
            raise ConnectionError("the keeper does not answer")
        return {"t0": training("t0")}

    progress = StudyProgress(1, OBJECTIVES)
    with LiveTable(progress, statuses, lines.append, no_terminal(), poll_seconds=0.001, line_seconds=60.0):
        wait_until(lambda: len(progress.at_work) == 1)
    assert len(calls) >= 4


def test_a_hanging_poll_holds_up_neither_records_nor_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("study.progress.live_table.END_SECONDS", 0.05)
    released, lines = threading.Event(), []

    def statuses() -> Mapping[str, ResidentStatus]:
        released.wait(60.0)
        return {}

    began = time.monotonic()
    with LiveTable(StudyProgress(1, OBJECTIVES), statuses, lines.append, no_terminal()) as table:
        table.note_record(make_record("t0", status="failed"))
    assert time.monotonic() - began < 20.0
    assert lines == ["[1/1] t0 failed: fp32, rank 8, q_v, learning rate 1e-3: made to be failed"]
    released.set()


def test_on_a_terminal_the_table_is_drawn_and_taken_away() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=140)
    lines: list[str] = []
    progress = StudyProgress(2, OBJECTIVES)
    said = {"t0": training("t0", pack_size=2)}
    with LiveTable(progress, lambda: said, lines.append, console, poll_seconds=0.005) as table:
        table.note_started("t0", make_config("nf4", 8))
        wait_until(lambda: "nf4 r8 q_v 1e-3" in screen.getvalue())
    assert "2 together" in screen.getvalue()
    assert lines == []  # no lines beside a table


def test_an_error_inside_passes_through_and_the_thread_ends() -> None:
    def fail() -> None:
        with LiveTable(StudyProgress(1, OBJECTIVES), dict, print, no_terminal(), poll_seconds=0.001):
            raise ValueError("it broke")

    with pytest.raises(ValueError, match="it broke"):
        fail()
    wait_until(lambda: not any(thread.name == "live table" for thread in threading.enumerate()))
