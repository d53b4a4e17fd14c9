"""A study's end: what is written and said, and the exit code; the run is made up, store and search are real."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from study.config.study_config import StudyConfig
from study.errors import PlanError, StoreError, StudyError
from study.records.store import ResultsStore
from study.run.lifecycle import finish
from study.run.study_run import StudyRun
from tests.support.made_up_runs import Run, begun, play

pytestmark = pytest.mark.usefixtures("checks")
quick = pytest.mark.usefixtures("quick")  # all but the test of everything that is written


def test_a_whole_study(
    config: StudyConfig, run_with: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    run_with(lambda study, show: play(study))
    study = begun(config)
    assert finish(study) == 0
    output = capsys.readouterr().out
    assert "made-up: 4 trials to run over nobody/nothing (hub id, revision main). Results go to" in output
    assert "made-up: 4 trials: 4 complete" in output
    assert f"Report: {study.directory / 'report.html'}" in output
    names = {path.name for path in study.directory.iterdir()}
    assert {"study.yaml", "provenance.json", "results.jsonl", "results.parquet", "optuna.db", "pareto.json"} <= names
    front = {member["trial_id"] for member in json.loads((study.directory / "pareto.json").read_text())["front"]}
    assert {path.name for path in (study.directory / "adapters").iterdir()} == front  # nf4 is cheaper and as good
    ResultsStore(study.directory).own()  # the directory is free again


@quick
@pytest.mark.parametrize(("status", "exit_code"), [("complete", 0), ("failed", 1), ("diverged", 1)])
def test_exit_codes(
    config: StudyConfig,
    run_with: Callable[[Run], None],
    capsys: pytest.CaptureFixture[str],
    status: str,
    exit_code: int,
) -> None:
    """One failed trial of four is no failure of the study; four are."""

    def run(study: StudyRun, show: Callable[[str], None]) -> None:
        play(study, most=1, status="failed")
        play(study, status=status)

    run_with(run)
    assert finish(begun(config)) == exit_code
    assert "made to be failed" in capsys.readouterr().out


@quick
def test_no_machine_for_it_is_an_error_of_its_own_and_frees_the_directory(
    config: StudyConfig, run_with: Callable[[Run], None]
) -> None:
    def run(study: StudyRun, show: Callable[[str], None]) -> None:
        raise PlanError("there is no GPU here")

    run_with(run)
    study = begun(config)
    with pytest.raises(PlanError, match="there is no GPU here"):
        finish(study)
    ResultsStore(study.directory).own()


@quick
def test_an_interrupted_study_says_how_to_continue(
    config: StudyConfig, run_with: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(study: StudyRun, show: Callable[[str], None]) -> None:
        play(study, most=1)
        raise KeyboardInterrupt

    run_with(run)
    study = begun(config)
    assert finish(study) == 1
    assert (
        f"Interrupted; 1 trial ended and is kept. Continue: python -m study resume {study.directory}"
        in capsys.readouterr().out
    )
    ResultsStore(study.directory).own()


@quick
def test_a_run_that_returns_early_says_what_is_left(
    config: StudyConfig, run_with: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    run_with(lambda study, show: play(study, most=3))
    study = begun(config)
    assert finish(study) == 1
    output = capsys.readouterr().out
    assert "1 trial did not run to an end. 3 trials ended and are kept. Continue: python -m study resume" in output
    assert "The Pareto front of" in output


@quick
@pytest.mark.parametrize(
    "error", [RuntimeError("Ray is\ngone"), StoreError("It must be writable", "disk full", "Free some.")]
)
def test_a_run_that_breaks_is_told_in_words(
    config: StudyConfig, run_with: Callable[[Run], None], error: Exception
) -> None:
    def run(study: StudyRun, show: Callable[[str], None]) -> None:
        play(study, most=2)
        raise error

    run_with(run)
    study = begun(config)
    with pytest.raises(StudyError) as caught:
        finish(study)
    if isinstance(error, StoreError):
        assert str(caught.value) == "It must be writable; disk full. Free some."
    else:
        assert str(caught.value).startswith(
            "The study broke off: RuntimeError: Ray is gone\n2 trials ended and are kept."
        )
    ResultsStore(study.directory).own()
