"""Watching a study from another process: the table, and the end."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from study.errors import ConfigError
from study.progress.live_file import LiveFile
from study.progress.study_progress import StudyProgress
from study.progress.watch import NoNewsError, _News, watch
from study.records.directory_lock import driver_has_died
from study.records.layout import OWNER_FILE
from study.records.objectives import Objective
from study.records.store import ResultsStore, concluded
from tests.support.made_up_studies import make_config, make_record, write_study_file
from trainables.protocol import ResidentStatus

OBJECTIVES = (Objective("perplexity", "minimize", 20.0), Objective("peak_memory_bytes", "minimize", 2**30))
STATUS = ResidentStatus("t1", "training", 3, 10, 2.5, None, 2, 400.0, 2**20)


def progress_of(left: int) -> StudyProgress:
    progress = StudyProgress({"fp32": left}, OBJECTIVES)
    progress.note_started("t1", make_config())
    return progress


def append(directory: Path, trial_id: str) -> None:
    with (directory / "results.jsonl").open("a", encoding="utf-8") as out:
        out.write(make_record(trial_id).to_json() + "\n")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_study_file(tmp_path)
    append(tmp_path, "t0")
    return tmp_path


def test_the_same_statuses_twice_are_no_news(directory: Path) -> None:
    news = _News(directory)
    with pytest.raises(NoNewsError):
        news.ask()
    with LiveFile(directory, progress_of(1)) as live:
        live.tell({"t1": STATUS})
        assert news.ask() == {"t1": STATUS}
        with pytest.raises(NoNewsError):
            news.ask()


def followed(directory: Path, during: Callable[[int, LiveFile], bool]) -> str:
    """What `watch` shows of a driver that does something at each pause, until it says that it is over."""
    lines: list[str] = []
    console = Console(file=io.StringIO(), force_terminal=False)
    live = LiveFile(directory, progress_of(2))
    live.tell({"t1": STATUS})
    pauses = iter(range(10))
    watch(directory, lines.append, console, lambda seconds: during(next(pauses), live) and live.__exit__())
    return "\n".join(lines)


def test_trials_that_end_are_shown_until_the_driver_ends(directory: Path) -> None:
    def during(pause: int, live: LiveFile) -> bool:
        append(directory, f"t{pause + 1}")
        if pause == 1:
            (directory / "results.parquet").touch()
        return pause == 1

    text = followed(directory, during)
    first, *rest = text.splitlines()
    assert first == "made-up: 1 trial: 1 complete so far, 2 to come"
    assert [line[:18] for line in rest[:2]] == ["[1/2] t1 complete:", "[2/2] t2 complete:"]
    assert "made-up: 3 trials: 3 complete" in text
    assert "It is not running" not in text


def test_a_study_that_broke_off_says_how_to_continue_it(directory: Path) -> None:
    text = followed(directory, lambda pause, live: True)
    assert f"did not come to its end. Continue it with: python -m study resume {directory}" in text


def test_a_driver_that_was_killed_here_is_not_waited_for(directory: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    owner = directory / OWNER_FILE
    assert not driver_has_died(directory)
    owner.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    assert not driver_has_died(directory)
    owner.write_text(f"process {ended.pid} on another.host", encoding="utf-8")
    assert not driver_has_died(directory)

    def kill(pause: int, live: LiveFile) -> bool:
        owner.write_text(f"process {ended.pid} on {socket.gethostname()}", encoding="utf-8")
        return False  # what it said last stays there

    assert "It is not running, and did not come to its end" in followed(directory, kill)
    lines: list[str] = []
    watch(directory, lines.append, pause=lambda seconds: pytest.fail("it waited"))
    assert "to come" not in lines[0]
    assert "It is not running" in lines[-1]


def test_a_copy_has_ended_as_its_original_whatever_the_age_of_its_files(directory: Path) -> None:
    ResultsStore(directory).write_table()
    later = (directory / "results.parquet").stat().st_mtime + 5
    os.utime(directory / "results.jsonl", (later, later))
    assert concluded(directory)
    append(directory, "t900")
    os.utime(directory / "results.jsonl", (later, later))
    assert not concluded(directory)


def test_a_study_that_ended_is_told_at_once(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not concluded(directory)
    (directory / "results.parquet").touch()
    assert concluded(directory)
    watch(directory)
    assert "made-up: 1 trial: 1 complete" in capsys.readouterr().out
    later = (directory / "results.parquet").stat().st_mtime + 5
    os.utime(directory / "results.jsonl", (later, later))  # a resumed run has added to it, and broke off
    assert not concluded(directory)
    with pytest.raises(ConfigError, match="must be a study's directory"):
        watch(directory / "nothing")
