"""Studies continued over what they began with, over changed data, and those of an earlier version; none is trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from study.config.study_config import StudyConfig, load_study
from study.errors import ConfigError
from study.plan.preflight import Preflight
from study.records.store import ResultsStore
from study.run import lifecycle
from study.run.confirm import confirm
from study.run.lifecycle import finish, reopen
from study.run.resumption.basis import read_basis
from study.run.study_run import StudyRun
from tests.support.made_up_runs import COMMAND, NOW, begun, kill, play
from tests.support.made_up_studies import write_study_file

STATISTICS = {name: {"rows": rows} for name, rows in {"train": 32, "eval": 4, "test": 4}.items()}
FOUND = Preflight(1, "llama", STATISTICS, sha256="weights", fingerprint="data", tokenizer_sha256="letters")
OTHER_DATA, OTHER_WEIGHTS = replace(FOUND, fingerprint="other rows"), replace(FOUND, sha256="other weights")


@pytest.fixture
def finds(monkeypatch: pytest.MonkeyPatch) -> Callable[[Preflight], None]:
    """Sets what is found of model and data; at first what the study begins with."""

    def find(found: Preflight) -> None:
        monkeypatch.setattr(lifecycle, "check", lambda config, here: found)

    find(FOUND)
    return find


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finds: Callable[[Preflight], None]) -> StudyConfig:
    monkeypatch.setattr("study.environment.provenance.collect", lambda command, now: {})
    monkeypatch.setattr("analysis.report.page.write_report", lambda directory: directory / "report.html")
    return load_study(write_study_file(tmp_path))


@pytest.fixture
def directory(config: StudyConfig) -> Path:
    """A study killed with one trial ended and one at work, of which there is a checkpoint."""
    study = begun(config)
    play(study, most=1)
    study.search.ask("fp32")
    assert study.basis is not None
    put_state(study.directory, "t001", study.basis.states)
    return kill(study)


def put_state(directory: Path, trial_id: str, basis: object) -> Path:
    """A trial's checkpoint, which names its basis or none."""
    folder = directory / f"tune/fp32-1/{trial_id}/checkpoint_000000"
    folder.mkdir(parents=True, exist_ok=True)
    values = {"config": {}} if basis is None else {"config": {}, "basis": basis}
    state = save({"weight": np.ones(3, np.float32)}, metadata={"training": json.dumps(values)})
    (folder / "training.safetensors").write_bytes(state)
    return folder


def reopened(directory: Path, accept: bool = False) -> StudyRun:
    study = reopen(directory, accept)
    study.store.close()
    return study


def said_beyond_the_first_line(capsys: pytest.CaptureFixture[str]) -> str:
    first, _, others = capsys.readouterr().out.partition("\n")
    assert first.endswith("left. Checking model and data.")
    return others


def test_over_what_it_began_with_a_study_continues_without_a_word(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noted = (directory / "basis.json").read_bytes()
    assert reopened(directory).checkpoint("t001") == str(directory / "tune/fp32-1/t001/checkpoint_000000")
    assert said_beyond_the_first_line(capsys) == ""
    assert (directory / "basis.json").read_bytes() == noted


def test_changed_data_leave_the_directory_as_it_was(directory: Path, finds: Callable[[Preflight], None]) -> None:
    before = {file: file.read_bytes() for file in directory.rglob("*") if file.is_file()}
    finds(OTHER_DATA)
    with pytest.raises(ConfigError, match="--accept-changed-data"):
        reopen(directory)
    assert {file: file.read_bytes() for file in directory.rglob("*") if file.is_file()} == before
    ResultsStore(directory).own()  # and free


def test_accepted_data_keep_the_records_and_begin_trials_at_work_anew(
    directory: Path, finds: Callable[[Preflight], None], capsys: pytest.CaptureFixture[str]
) -> None:
    kept = (directory / "results.jsonl").read_bytes()
    finds(OTHER_DATA)
    study = reopened(directory, accept=True)
    assert study.checkpoint("t001") is None
    output = capsys.readouterr().out
    assert "Changed data is accepted: 1 trial ended on what was before, and do not compare" in output
    assert "t001: its newest checkpoint is not continued, which differs in dataset.fingerprint." in output
    assert (directory / "results.jsonl").read_bytes() == kept
    basis = read_basis(directory)
    assert basis is not None
    assert basis.changes == ({"dataset.fingerprint": {"was": "data", "now": "other rows"}},)
    assert reopened(directory).basis == basis  # it need not be accepted twice
    finds(FOUND)
    with pytest.raises(ConfigError):  # going back is a change too
        reopen(directory)


def test_another_base_model_is_never_accepted(directory: Path, finds: Callable[[Preflight], None]) -> None:
    finds(OTHER_WEIGHTS)
    for accept in (False, True):
        with pytest.raises(ConfigError, match=r"base_model\.path.*weights that the study began with"):
            reopen(directory, accept)


def test_a_complete_study_is_opened_whatever_became_of_its_data(
    config: StudyConfig, finds: Callable[[Preflight], None]
) -> None:
    study = begun(config)
    play(study)
    finds(OTHER_WEIGHTS)
    assert finish(reopen(kill(study))) == 0


# -- directories of an earlier version ---------------------------------------------------------------------------------


def of_an_earlier_version(directory: Path, **record: object) -> Path:
    """The study as if it had been begun before a basis was noted; `record` replaces parts of its one record."""
    (directory / "basis.json").unlink()
    (there,) = ResultsStore(directory).records()
    (directory / "results.jsonl").unlink()
    if record:
        store = ResultsStore(directory)
        store.append(replace(there, **record))  # type: ignore[arg-type]
        store.close()
    return directory


@pytest.mark.parametrize("known", [True, False])
def test_one_without_a_basis_continues_and_says_so(
    directory: Path, capsys: pytest.CaptureFixture[str], known: bool
) -> None:
    parts = {"base_model": {"sha256": "weights"}, "dataset": {"fingerprint": "data"}} if known else {}
    of_an_earlier_version(directory, **parts)
    place = put_state(directory, "t001", None)  # no basis is named in its checkpoints either
    assert reopened(directory).checkpoint("t001") == str(place)
    output = capsys.readouterr().out
    assert "does not say what its trials depend on: an earlier version began it, or basis.json was removed" in output
    assert ("are held to those of its records" in output) == known
    assert reopened(directory).checkpoint("t001") == str(place)
    assert said_beyond_the_first_line(capsys) == ""  # from now on it is noted


def test_one_whose_records_name_other_data_is_refused(directory: Path) -> None:
    of_an_earlier_version(directory, base_model={"sha256": "weights"}, dataset={"fingerprint": "earlier rows"})
    place = put_state(directory, "t001", None)
    with pytest.raises(ConfigError, match=r"dataset .*it gives 32 train, 4 eval, 4 test.*--accept-changed-data"):
        reopen(directory)
    assert reopened(directory, accept=True).checkpoint("t001") is None
    assert place.exists()


def test_one_whose_records_name_another_base_model_is_refused(directory: Path) -> None:
    of_an_earlier_version(directory, base_model={"sha256": "earlier"}, dataset={"fingerprint": "data"})
    with pytest.raises(ConfigError, match="weights that the study began with, earlier; it has weights"):
        reopen(directory, accept_changed_data=True)


# -- confirmations -----------------------------------------------------------------------------------------------------


@pytest.fixture
def finished(config: StudyConfig, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished study, whose front may be confirmed; trials are played."""

    def run(study: StudyRun, show: Callable[[str], None], meanwhile: Callable[[], None]) -> None:
        play(study)
        meanwhile()

    monkeypatch.setattr("study.run.driver.run_study", run)
    study = begun(config)
    assert finish(study) == 0
    return study.directory


@pytest.mark.parametrize("found", [OTHER_DATA, OTHER_WEIGHTS])
def test_a_front_is_confirmed_on_what_it_was_trained_on(
    finished: Path, finds: Callable[[Preflight], None], found: Preflight
) -> None:
    finds(found)
    with pytest.raises(ConfigError, match="that the study began with"):
        confirm(finished, False, COMMAND, NOW)
    assert not (finished / "confirm").exists()
    if found is OTHER_DATA:
        assert confirm(finished, False, COMMAND, NOW, accept_changed_data=True) == 0
    finds(FOUND)


def test_a_confirmation_names_its_own_basis(finished: Path) -> None:
    assert confirm(finished, False, COMMAND, NOW) == 0
    basis, own = read_basis(finished), read_basis(finished / "confirm")
    assert basis is not None
    assert own is not None
    assert own.states == basis.states
