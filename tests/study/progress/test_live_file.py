"""The live file: what the driver writes is what others read, whichever version wrote it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from study.progress.live_file import LiveFile, read_live
from study.progress.pace import Pace
from study.progress.study_progress import StudyProgress
from study.records.layout import LIVE_FILE
from study.records.objectives import Objective
from tests.support.made_up_studies import make_config, make_record
from trainables.protocol import STAGES, ResidentStatus, Stage

STATUS = ResidentStatus("t1", "training", 3, 10, 2.5, None, 2, 400.0, 2**20)


@pytest.fixture
def progress() -> StudyProgress:
    progress = StudyProgress({"fp32": 3}, (Objective("perplexity", "minimize", 20.0),))
    progress.note_started("t1", make_config())
    return progress


def test_what_the_driver_writes_is_read_as_it_was_written(tmp_path: Path, progress: StudyProgress) -> None:
    with LiveFile(tmp_path, progress) as live:
        assert live.tell({"t1": STATUS}) == {"t1": STATUS}
        word = read_live(tmp_path)
        assert word is not None
        assert (word.number, word.left, word.statuses) == (1, {"fp32": 3}, {"t1": STATUS})
        assert word.configs == {"t1": make_config()}
        progress.note_record(make_record("t1"), 1.0)
        live.tell({})
        word = read_live(tmp_path)
        assert word is not None
        assert (word.number, word.left, word.statuses) == (2, {"fp32": 2}, {})
    assert read_live(tmp_path) is None
    assert not (tmp_path / LIVE_FILE).exists()


def test_a_full_disk_does_not_disturb_the_study(tmp_path: Path, progress: StudyProgress) -> None:
    live = LiveFile(tmp_path / "gone", progress)
    assert live.tell({"t1": STATUS}) == {"t1": STATUS}


@pytest.mark.parametrize("content", ["", "{", '{"number": 1, "left"'])
def test_a_file_that_is_not_whole_is_no_news(content: str, tmp_path: Path) -> None:
    (tmp_path / LIVE_FILE).write_text(content, encoding="utf-8")
    assert read_live(tmp_path) is None


def rewritten(directory: Path, progress: StudyProgress, **changes: Any) -> dict[str, ResidentStatus]:
    """What is read after the status' keys have been changed; a key whose value is None is taken away."""
    LiveFile(directory, progress).tell({"t1": STATUS})
    values = json.loads((directory / LIVE_FILE).read_text(encoding="utf-8"))
    (status,) = values["statuses"]
    values["statuses"] = [{name: value for name, value in {**status, **changes}.items() if value is not None}]
    (directory / LIVE_FILE).write_text(json.dumps(values), encoding="utf-8")
    word = read_live(directory)
    assert word is not None
    return dict(word.statuses)


def test_an_earlier_versions_driver_wrote_the_stage_as_phase(tmp_path: Path, progress: StudyProgress) -> None:
    found = rewritten(tmp_path, progress, stage=None, phase="evaluating")
    assert found == {"t1": replace(STATUS, stage="evaluating")}


def test_a_later_versions_keys_are_left_out(tmp_path: Path, progress: StudyProgress) -> None:
    assert rewritten(tmp_path, progress, colour="red") == {"t1": STATUS}


@pytest.mark.parametrize("stage", [None, "dreaming"])
def test_a_trial_of_unknown_stage_is_left_out(stage: str | None, tmp_path: Path, progress: StudyProgress) -> None:
    assert rewritten(tmp_path, progress, stage=stage) == {}


def test_every_stage_is_known_to_the_pace() -> None:
    """A stage that it did not know would raise where a table is drawn."""
    assert get_args(Stage) == STAGES
    for stage in STAGES:
        Pace({"fp32": 1}).note([("fp32", ResidentStatus("t0", stage, 0, 10))])
