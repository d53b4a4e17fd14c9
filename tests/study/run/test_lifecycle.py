"""A study's beginning and end: what is refused, written and said; the run is made up, store and search are real."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from study.config.study_config import ConfigError, StudyConfig, load_study
from study.errors import PlanError, StoreError, StudyError
from study.records.store import ResultsStore
from study.run import lifecycle
from study.run.lifecycle import begin, finish
from study.run.study_run import StudyRun
from tests.support.made_up_runs import COMMAND, NOW, Run, begun, kill, play

pytestmark = pytest.mark.usefixtures("checks")
quick = pytest.mark.usefixtures("quick")  # all but the two tests of everything that is written


# -- beginning --------------------------------------------------------------------------------------------------------


def test_a_study_begins_in_its_own_directory(config: StudyConfig, tmp_path: Path, checks: list[str]) -> None:
    study = begun(config)
    assert study.directory == tmp_path / "storage" / "made-up-20260131-120005"
    assert checks == [config.file]
    assert load_study(study.directory / "study.yaml") == config
    facts = json.loads((study.directory / "provenance.json").read_text())
    assert (facts["command"], facts["started"]) == (COMMAND, "2026-01-31T12:00:05+00:00")
    assert study.store.records() == ()
    kill(study)


@quick
def test_two_studies_of_one_second_get_a_directory_each(config: StudyConfig) -> None:
    first, second = begun(config), begun(config)
    assert second.directory.name == f"{first.directory.name}-2"
    for study in (first, second):
        kill(study)


@quick
def test_an_existing_study_is_refused_with_the_remedy(config: StudyConfig, tmp_path: Path, checks: list[str]) -> None:
    out = tmp_path / "my study"
    kill(begun(config, out))
    with pytest.raises(ConfigError) as caught:
        begun(config, out)
    assert f"python -m study resume '{out}'" in str(caught.value)
    assert len(checks) == 1


@quick
@pytest.mark.parametrize(("here", "begun_before"), [(True, [0]), (False, [])], ids=["here", "on a cluster"])
def test_ray_starts_beside_the_checks_of_a_study_of_this_machine(
    config: StudyConfig, ray: Any, monkeypatch: pytest.MonkeyPatch, here: bool, begun_before: list[int]
) -> None:
    """A cluster is connected to once the study may run."""
    monkeypatch.setattr(lifecycle, "runs_here", lambda: here)
    study = begin(config, None, COMMAND, NOW, ray=ray)
    assert study.ray is ray
    assert (ray.begun, ray.checked) == (begun_before, [config.file])
    kill(study)


@quick
def test_what_costs_nothing_to_see_is_refused_before_ray_starts(config: StudyConfig, tmp_path: Path, ray: Any) -> None:
    (tmp_path / "out" / "something").mkdir(parents=True)
    with pytest.raises(ConfigError, match="--out"):
        begin(config, tmp_path / "out", COMMAND, NOW, ray=ray)
    assert ray.begun == []


@quick
@pytest.mark.parametrize("kind", ["a file", "a full directory", "below a file"])
def test_places_that_cannot_be_a_study(config: StudyConfig, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "a full directory":
        (out / "something").mkdir(parents=True)
    else:
        out.write_text("")
    with pytest.raises(ConfigError, match="--out"):
        begun(config, out / "deeper" if kind == "below a file" else out)


@quick
def test_an_empty_directory_may_become_a_study(config: StudyConfig, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    study = begun(config, tmp_path / "out")
    assert study.directory == tmp_path / "out"
    kill(study)


@quick
def test_what_the_checks_refuse_makes_no_directory(
    config: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(config: StudyConfig, here: bool) -> None:
        raise ConfigError([])

    monkeypatch.setattr(lifecycle, "check", refuse)
    with pytest.raises(ConfigError):
        begun(config)
    assert not (tmp_path / "storage").exists()


# -- to the end -------------------------------------------------------------------------------------------------------


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
def test_a_study_interrupted_as_it_begins_says_how_to_continue(
    config: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("study.search.study_search.open_search", interrupt)
        with pytest.raises(KeyboardInterrupt):
            begun(config, tmp_path / "study")
    assert f"Continue it: python -m study resume {tmp_path / 'study'}" in capsys.readouterr().out
    kill(lifecycle.reopen(tmp_path / "study"))  # nobody holds it


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
