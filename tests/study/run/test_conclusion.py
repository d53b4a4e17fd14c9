"""A complete study stays complete whatever fails of its finishing steps: it prints its front and exits with 0."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from analysis.report.javascript import is_kept
from study.config.study_config import StudyConfig, load_study
from study.errors import StoreError, StudyError
from study.records.store import ResultsStore
from study.run import conclusion, lifecycle
from study.run.conclusion import IMPORTS, plain_front, prepare_conclusion, remedy_for
from study.run.confirm import confirm
from study.run.lifecycle import finish, reopen
from study.run.study_run import StudyRun
from tests.support.made_up_runs import COMMAND, NOW, begun, play
from tests.support.made_up_studies import write_study_file
from tests.support.places import ROOT

pytestmark = pytest.mark.usefixtures("checks")

FULL = OSError(28, "No space left on device")
FAULTS = {
    "a full disk": (FULL, "Free some space"),
    "a package that is missing": (
        ModuleNotFoundError("No module named 'vl_convert'", name="vl_convert"),
        "pip install",
    ),
    "no right to write": (PermissionError(13, "Permission denied"), "right to write|may write"),
    "a fault of our own": (KeyError("perplexity"), "LORA_FRONTIER_TRACEBACK=1"),
    "no memory": (MemoryError(), "LORA_FRONTIER_TRACEBACK=1"),
}
STEPS = {
    "results.parquet could not be written": "study.records.results_table.write_results_table",
    "Adapters that are not kept could not be removed": "study.run.conclusion.prune_adapters",
    "The report could not be written": "analysis.report.page.write_report",
    "The end could not be told in full": "study.run.conclusion.ending_text",
}


@pytest.fixture
def play_on(run_with: Callable[[Any], None]) -> None:
    run_with(lambda study, show: play(study))


def broken(error: Exception) -> Callable[..., None]:
    def step(*arguments: Any, **options: Any) -> None:
        raise error

    return step


@pytest.mark.usefixtures("play_on")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("failure", STEPS)
def test_a_step_that_fails_costs_nothing_else(
    config: StudyConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failure: str,
    fault: str,
) -> None:
    monkeypatch.setattr("study.environment.provenance.collect", lambda command, now: {})
    if "write_report" not in STEPS[failure]:
        monkeypatch.setattr("analysis.report.page.write_report", lambda directory: directory / "report.html")
    error, remedy = FAULTS[fault]
    monkeypatch.setattr(STEPS[failure], broken(error))
    study = begun(config)
    assert finish(study) == 0
    output = capsys.readouterr().out
    (line,) = [line for line in output.splitlines() if line.startswith(failure)]
    assert re.search(remedy, line)
    assert f"python -m study resume {study.directory}" in line
    assert "The Pareto front" in output
    assert "t003" in output  # on the front
    assert len(ResultsStore(study.directory).records()) == 4
    assert (study.directory / "results.parquet").exists() == (not failure.startswith("results.parquet"))
    ResultsStore(study.directory).own()  # it is free


@pytest.mark.usefixtures("play_on")
@pytest.mark.parametrize("name", ["report.html", "pareto.json", "results.parquet"])
def test_a_folder_in_a_file_s_place(config: StudyConfig, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Nothing is made up here: the real report and the real table, which cannot be put in their places."""
    study = begun(config)
    (study.directory / name / "inside").mkdir(parents=True)
    assert finish(study) == 0
    output = capsys.readouterr().out
    assert "could not be written: " in output
    assert name in output
    assert "The Pareto front of" in output
    (study.directory / name / "inside").rmdir()
    (study.directory / name).rmdir()
    assert finish(reopen(study.directory)) == 0  # as the line says
    assert "could not be" not in capsys.readouterr().out
    assert (study.directory / name).is_file()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("concluded", [False, True])
def test_what_breaks_after_the_last_trial_breaks_nothing_off(
    config: StudyConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], concluded: bool
) -> None:
    """Ray's end, a logger's, the live table's: the front is printed once."""

    def run(study: StudyRun, show: Callable[[str], None], meanwhile: Callable[[], None]) -> None:
        play(study)
        if concluded:
            meanwhile()
        raise RuntimeError("Ray did not\nend")

    monkeypatch.setattr("study.run.driver.run_study", run)
    assert finish(begun(config)) == 0
    output = capsys.readouterr().out
    assert output.count("The Pareto front of") == 1
    assert (
        "All trials have ended and are kept. What follows on them broke off: RuntimeError: Ray did not end." in output
    )


@pytest.mark.usefixtures("quick")
def test_what_breaks_before_is_no_end(config: StudyConfig, run_with: Callable[[Any], None]) -> None:
    def run(study: StudyRun, show: Callable[[str], None]) -> None:
        play(study, most=3)
        raise FULL

    run_with(run)
    with pytest.raises(StudyError, match="3 trials ended and are kept"):
        finish(begun(config))


# -- preparation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [False, True])
def test_while_trials_train_the_script_is_made_where_it_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    ran: list[Sequence[str]] = []
    monkeypatch.setattr("analysis.report.javascript.is_kept", lambda: kept)
    monkeypatch.setattr(conclusion, "_run_quietly", ran.append)
    prepare_conclusion().join()
    assert set(IMPORTS) <= set(sys.modules)
    assert len(ran) == (not kept)


def test_what_fails_while_it_is_prepared_is_left_to_the_end(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("analysis.report.javascript.is_kept", lambda: False)
    monkeypatch.setattr(conclusion, "_run_quietly", broken(FULL))
    prepare_conclusion().join()
    assert capfd.readouterr() == ("", "")


def test_the_other_process_leaves_the_script_where_the_report_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path / "cache"))
    assert not is_kept()
    prepare_conclusion().join()
    assert is_kept()


# -- object stores -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick", "play_on")
def test_results_that_are_not_copied_to_their_store_are_an_exit_code_and_all_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who fetches the study would miss trials: it is not done. The command that is named copies it."""
    copies: list[str] = []

    @contextmanager
    def mirror(directory: Path, url: str) -> Iterator[None]:
        yield
        copies.append(url)
        if len(copies) == 1:
            raise StoreError("It must be writable", "the credentials have expired", "Renew them.")

    monkeypatch.setattr(lifecycle, "Mirror", mirror)
    config = load_study(write_study_file(tmp_path, storage="s3://bucket/runs"))
    study = begun(config, tmp_path / "out")
    with pytest.raises(StudyError) as caught:
        finish(study)
    assert "The Pareto front of" in capsys.readouterr().out
    said = str(caught.value)
    assert "All trials have ended, and their results are whole in" in said
    assert "could be copied to s3://bucket/runs/out: It must be writable; the credentials have expired" in said
    assert said.endswith(f"Copy them: python -m study resume {tmp_path / 'out'}")
    assert finish(reopen(study.directory)) == 0
    assert copies == ["s3://bucket/runs/out"] * 2


# -- confirmations -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick", "play_on")
@pytest.mark.parametrize("kind", ["a folder in its place", "a fault of our own"])
def test_a_conclusion_that_fails_keeps_the_confirmation(
    config: StudyConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    study = begun(config)
    assert finish(study) == 0
    if kind == "a folder in its place":
        (study.directory / "confirm").mkdir()
        monkeypatch.setattr("study.run.confirm.write_whole", broken(IsADirectoryError(21, "Is a directory")))
    else:
        monkeypatch.setattr("study.run.confirm.confirmation", broken(ZeroDivisionError("a mean of nothing")))
    capsys.readouterr()
    assert confirm(study.directory, False, COMMAND, NOW) == 0
    output = capsys.readouterr().out
    assert "All records are kept." in output
    assert f"python -m study confirm {study.directory}" in output
    assert ("Confirmed on the" in output) == (kind == "a folder in its place")
    monkeypatch.undo()


# -- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_has_its_remedy(fault: str) -> None:
    error, remedy = FAULTS[fault]
    assert re.search(remedy, remedy_for(error))


def test_the_plain_front_stands_in_where_words_fail(config: StudyConfig) -> None:
    assert plain_front((), config.objectives) == "No trial is complete."


def test_output_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    """Standard output on a full disk, as a redirected one may be."""
    script = "from study.output import say, flush_output; say('a'); say('b'); flush_output(); open('done', 'w')"
    with open("/dev/full", "wb") as full:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "done").exists()
