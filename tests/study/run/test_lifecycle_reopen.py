"""A study continued after a kill: no trial is lost or recorded twice; store and search are the real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search_spaces.trial_config import TrialConfig
from study.config.study_config import ConfigError, StudyConfig
from study.errors import StoreError
from study.records.record import TrialRecord
from study.records.store import ResultsStore
from study.run import lifecycle
from study.run.lifecycle import finish, reopen
from study.run.study_run import StudyRun
from study.run.tune_searcher import TuneSearcher
from tests.support.made_up_runs import Run, begun, kill, play
from tests.support.made_up_studies import make_record

pytestmark = pytest.mark.usefixtures("checks", "quick")


def test_a_continued_study_runs_what_is_left_and_nothing_twice(
    config: StudyConfig, run_with: Callable[[Run], None], checks: list[str]
) -> None:
    study = begun(config)
    play(study, most=1)
    study.search.ask("fp32")  # it was running
    directory = kill(study)
    ran: list[str] = []

    def run(again: StudyRun, show: Callable[[str], None]) -> None:
        before = {record.trial_id for record in again.store.records()}
        play(again)
        ran.extend(record.trial_id for record in again.store.records() if record.trial_id not in before)

    run_with(run)
    assert finish(reopen(directory)) == 0
    assert ran == ["t001", "t002", "t003"]
    assert checks == [config.file, str(directory / "study.yaml")]


@pytest.mark.parametrize("lost", ["the search's word", "the record"])
def test_a_kill_between_record_and_search_ends_each_trial_once(
    config: StudyConfig, run_with: Callable[[Run], None], lost: str
) -> None:
    study = begun(config)
    play(study, most=1)
    play(study, most=1, told=lost != "the search's word", recorded=lost != "the record")
    directory = kill(study)
    run_with(lambda again, show: play(again))
    again = reopen(directory)
    assert finish(again) == 0
    ids = [json.loads(line)["trial_id"] for line in (directory / "results.jsonl").read_text().splitlines()]
    assert sorted(ids) == ["t000", "t001", "t002", "t003"]
    assert again.search.unfinished() == []
    assert len(again.search.proposals()) == 4


def test_a_torn_last_line_is_run_again(
    config: StudyConfig, run_with: Callable[[Run], None], ray: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    study = begun(config)
    play(study, most=2)
    directory = kill(study)
    results = directory / "results.jsonl"
    results.write_bytes(results.read_bytes()[:-100])
    run_with(lambda again, show: play(again))
    again = reopen(directory, ray=ray)
    assert again.ray is ray
    assert ray.begun == [1]  # beside the second check
    assert "made-up: 3 trials left. Checking model and data.\n" in capsys.readouterr().out
    assert finish(again) == 0
    records = ResultsStore(directory).records()
    assert sorted(record.trial_id for record in records) == ["t000", "t001", "t002", "t003"]


def test_with_nothing_left_it_says_so_and_starts_nothing(
    config: StudyConfig,
    run_with: Callable[[Run], None],
    checks: list[str],
    ray: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = begun(config)
    play(study)
    directory = kill(study)

    def run(study: StudyRun, show: Callable[[str], None]) -> None:
        raise AssertionError("there is nothing to run")

    run_with(run)
    assert finish(reopen(directory, ray=ray)) == 0
    assert ray.begun == []
    output = capsys.readouterr().out
    assert "nothing is left to run, all trials have ended" in output
    assert "The Pareto front of" in output
    assert len(checks) == 1  # the model may be gone by now


def test_a_study_in_use_is_refused(config: StudyConfig) -> None:
    study = begun(config)
    with pytest.raises(StoreError, match="one driver at a time"):
        reopen(study.directory)
    kill(study)


def test_no_study_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must be a study's directory, which holds a study\.yaml"):
        reopen(tmp_path)
    with pytest.raises(ConfigError):
        reopen(tmp_path / "nothing")


def test_a_refused_model_frees_the_directory(config: StudyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = kill(begun(config))

    def refuse(config: StudyConfig, here: bool) -> None:
        raise ConfigError([])

    monkeypatch.setattr(lifecycle, "check", refuse)
    with pytest.raises(ConfigError):
        reopen(directory)
    ResultsStore(directory).own()


def test_a_trial_told_by_tune_and_recorded_counts_once(config: StudyConfig, run_with: Callable[[Run], None]) -> None:
    """The way that a run takes: Tune's searcher tells, the recorder appends."""

    def run(study: StudyRun, show: Callable[[str], None]) -> None:
        for precision in study.config.space.precisions():
            searcher = TuneSearcher(study.search, precision=precision, objectives=study.config.objectives, places=1)
            number = 0
            while isinstance(suggestion := searcher.suggest(str(number)), dict):
                record = record_of(suggestion)
                outcome = json.dumps({"measurements": dict(record.measurements)})
                searcher.on_trial_complete(str(number), {"record_status": "complete", "outcome": outcome})
                study.store.append(record)
                number += 1

    run_with(run)
    study = begun(config)
    assert finish(study) == 0
    assert len(study.store.records()) == 4


def record_of(suggestion: dict[str, Any]) -> TrialRecord:
    return make_record(suggestion["trial_id"], TrialConfig.from_dict(suggestion["config"]))
