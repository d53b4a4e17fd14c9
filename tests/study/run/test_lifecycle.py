"""A study begun, broken off, gone on with, finished: the run is made up, store and search are the real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from study.config.study_config import ConfigError, StudyConfig, load_study
from study.errors import PlanError, StoreError, StudyError
from study.records.record import TrialRecord
from study.records.store import ResultsStore
from study.run import lifecycle
from study.run.directory import prune_adapters
from study.run.driver import StudyRun
from study.run.lifecycle import begin, finish, reopen
from study.run.tune_searcher import TuneSearcher
from tests.support.made_up_studies import make_record, write_study_file

NOW = datetime(2026, 1, 31, 12, 0, 5, tzinfo=UTC)
COMMAND = "python -m study run study.yaml"
Run = Callable[[StudyRun, Callable[[str], None]], None]


@pytest.fixture
def config(tmp_path: Path) -> StudyConfig:
    return load_study(write_study_file(tmp_path))


@pytest.fixture(autouse=True)
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The studies that were checked, which takes no model here."""
    checked: list[str] = []
    monkeypatch.setattr(lifecycle, "check", lambda config, here: checked.append(config.file))
    return checked


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what takes time and has tests of its own, but in the two tests of all that is written."""
    if request.function not in (test_a_study_begins_in_its_own_directory, test_a_whole_study):
        monkeypatch.setattr("study.environment.provenance.collect", lambda command, now: {})
        monkeypatch.setattr("analysis.report.page.write_report", lambda directory: directory / "report.html")


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], None]:
    """Sets what stands in for the run."""

    def set_run(run: Run) -> None:
        def then_meanwhile(study: StudyRun, show: Callable[[str], None], meanwhile: Callable[[], None]) -> None:
            run(study, show)
            meanwhile()

        monkeypatch.setattr("study.run.driver.run_study", then_meanwhile)

    return set_run


def play(study: StudyRun, most: int = 100, status: str = "complete", told: bool = True, recorded: bool = True) -> None:
    """Runs trials as the driver does: unfinished ones first, then what the search proposes; writes their adapters."""
    for precision in study.config.space.precisions():
        first = [one for one in study.search.unfinished() if one.config.precision == precision]
        while most > 0:
            proposal = first.pop(0) if first else study.search.ask(precision)
            if proposal is None:
                break
            record = make_record(proposal.trial_id, proposal.config, status)
            (study.directory / "adapters" / proposal.trial_id).mkdir(parents=True, exist_ok=True)
            if told:
                values = (record.measurements["perplexity"], record.measurements["peak_memory_bytes"])
                study.search.tell(proposal.trial_id, status, values if status == "complete" else None, record.reason)
            if recorded:
                assert study.store.append(record)
            most -= 1


def begun(config: StudyConfig, out: Path | None = None) -> StudyRun:
    return begin(config, out, COMMAND, NOW)


def kill(study: StudyRun) -> Path:
    """What the end of a process does to the directory's lock."""
    study.store.close()
    return study.directory


# -- beginning ---------------------------------------------------------------------------------------------------------


def test_a_study_begins_in_its_own_directory(config: StudyConfig, tmp_path: Path, checks: list[str]) -> None:
    study = begun(config)
    assert study.directory == tmp_path / "storage" / "made-up-20260131-120005"
    assert checks == [config.file]
    assert load_study(study.directory / "study.yaml") == config
    facts = json.loads((study.directory / "provenance.json").read_text())
    assert (facts["command"], facts["started"]) == (COMMAND, "2026-01-31T12:00:05+00:00")
    assert study.store.records() == ()
    kill(study)


def test_two_studies_of_one_second_get_a_directory_each(config: StudyConfig) -> None:
    first, second = begun(config), begun(config)
    assert second.directory.name == f"{first.directory.name}-2"
    for study in (first, second):
        kill(study)


def test_an_existing_study_is_refused_with_the_remedy(config: StudyConfig, tmp_path: Path, checks: list[str]) -> None:
    out = tmp_path / "my study"
    kill(begun(config, out))
    with pytest.raises(ConfigError) as caught:
        begun(config, out)
    assert f"python -m study resume '{out}'" in str(caught.value)
    assert len(checks) == 1


@pytest.mark.parametrize("kind", ["a file", "a full directory", "below a file"])
def test_places_that_cannot_be_a_study(config: StudyConfig, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "a full directory":
        (out / "something").mkdir(parents=True)
    else:
        out.write_text("")
    with pytest.raises(ConfigError, match="--out"):
        begun(config, out / "deeper" if kind == "below a file" else out)


def test_an_empty_directory_may_become_a_study(config: StudyConfig, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    study = begun(config, tmp_path / "out")
    assert study.directory == tmp_path / "out"
    kill(study)


def test_what_the_checks_refuse_makes_no_directory(
    config: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(config: StudyConfig, here: bool) -> None:
        raise ConfigError([])

    monkeypatch.setattr(lifecycle, "check", refuse)
    with pytest.raises(ConfigError):
        begun(config)
    assert not (tmp_path / "storage").exists()


# -- to the end --------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("policy", "kept"), [("front", {"t2", "t3"}), ("complete", {"t1", "t2", "t3"}), ("none", set())]
)
def test_adapters_are_kept_by_the_policy(tmp_path: Path, policy: str, kept: set[str]) -> None:
    for trial_id in ("t0", "t1", "t2", "t3"):
        (tmp_path / "adapters" / trial_id).mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "adapters" / "link").symlink_to(tmp_path / "elsewhere")
    records = [make_record("t0", status="failed"), *(make_record(f"t{number}") for number in (1, 2, 3))]
    prune_adapters(tmp_path, policy, records, ["t2", "t3"])
    assert {path.name for path in (tmp_path / "adapters").iterdir()} == kept | {"link"}
    assert (tmp_path / "elsewhere").is_dir()


def test_no_adapters_at_all_are_nothing_to_prune(tmp_path: Path) -> None:
    prune_adapters(tmp_path, "front", [], [])
    assert not (tmp_path / "adapters").exists()


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


def test_no_machine_for_it_is_wrong_input(
    config: StudyConfig, run_with: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(study: StudyRun, show: Callable[[str], None]) -> None:
        raise PlanError("there is no GPU here")

    run_with(run)
    assert finish(begun(config)) == 2
    assert capsys.readouterr().err == "there is no GPU here\n"


def test_an_interrupted_study_says_how_to_go_on(
    config: StudyConfig, run_with: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(study: StudyRun, show: Callable[[str], None]) -> None:
        play(study, most=1)
        raise KeyboardInterrupt

    run_with(run)
    study = begun(config)
    assert finish(study) == 1
    assert (
        f"Interrupted; 1 trial ended and is kept. Go on: python -m study resume {study.directory}"
        in capsys.readouterr().out
    )
    ResultsStore(study.directory).own()


def test_a_run_that_returns_early_says_what_is_left(
    config: StudyConfig, run_with: Callable[[Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    run_with(lambda study, show: play(study, most=3))
    study = begun(config)
    assert finish(study) == 1
    output = capsys.readouterr().out
    assert "1 trial did not run to an end. 3 trials ended and are kept. Go on: python -m study resume" in output
    assert "The front" in output


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


# -- going on ----------------------------------------------------------------------------------------------------------


def test_going_on_runs_what_is_left_and_nothing_twice(
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


def test_a_torn_last_line_is_run_again(config: StudyConfig, run_with: Callable[[Run], None]) -> None:
    study = begun(config)
    play(study, most=2)
    directory = kill(study)
    results = directory / "results.jsonl"
    results.write_bytes(results.read_bytes()[:-100])
    run_with(lambda again, show: play(again))
    assert finish(reopen(directory)) == 0
    records = ResultsStore(directory).records()
    assert sorted(record.trial_id for record in records) == ["t000", "t001", "t002", "t003"]


def test_with_nothing_left_it_says_so_and_starts_nothing(
    config: StudyConfig, run_with: Callable[[Run], None], checks: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    study = begun(config)
    play(study)
    directory = kill(study)

    def run(study: StudyRun, show: Callable[[str], None]) -> None:
        raise AssertionError("there is nothing to run")

    run_with(run)
    assert finish(reopen(directory)) == 0
    output = capsys.readouterr().out
    assert "nothing is left to run, all trials have ended" in output
    assert "The front" in output
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
    from search_spaces.trial_config import TrialConfig

    return make_record(suggestion["trial_id"], TrialConfig.from_dict(suggestion["config"]))
