"""The files of a job: the rooms, the resolved study, its data; nothing else of the checkout."""

from __future__ import annotations

import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from study.cluster import job_package as module
from study.cluster.job_package import JOB_STUDY_FILE, code_package, job_package, write_package
from study.config.study_config import ConfigError, StudyConfig, load_study
from study.environment import provenance
from study.environment.provenance import PACKED_GIT_FILE
from tests.support.made_up_studies import write_study_file


@pytest.fixture
def config(tmp_path: Path) -> StudyConfig:
    return load_study(write_study_file(tmp_path, "org/model"))


def checkout(folder: Path) -> Path:
    """A checkout with everything in it that must stay at home."""
    for name in (
        "study/run/driver.py", "study/studies/a.yaml", "study/__pycache__/run.pyc", "trainables/a.py", "analysis/a.py",
        "trainables/sample_data/rows.jsonl", "search_spaces/a.yaml", "pyproject.toml", "runs/x/results.jsonl",
        ".git/config", ".venv/bin/python", "data/secret.jsonl", "model.safetensors", "tests/test_a.py", ".env",
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_the_rooms_go_and_all_else_stays(tmp_path: Path, config: StudyConfig) -> None:
    package = job_package(config, checkout(tmp_path / "checkout"))
    assert set(package.files) == {
        "study/run/driver.py", "study/studies/a.yaml", "trainables/a.py", "analysis/a.py",
        "trainables/sample_data/rows.jsonl",
        "search_spaces/a.yaml", "pyproject.toml", "job/train_file.jsonl",
    }  # fmt: skip
    assert set(package.texts) == {JOB_STUDY_FILE, PACKED_GIT_FILE}


def test_the_commit_goes_along_for_the_provenance(
    tmp_path: Path, config: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "git_state", lambda checkout: {"commit": "0123abc", "dirty": True})
    package = write_package(job_package(config, checkout(tmp_path / "checkout")), tmp_path / "package.zip")
    monkeypatch.setattr(module, "git_state", lambda checkout: None)
    without = write_package(job_package(config, tmp_path / "checkout"), tmp_path / "without.zip")
    for file, state in ((package, {"commit": "0123abc", "dirty": True}), (without, None)):
        there = tmp_path / f"{file.stem} there"
        zipfile.ZipFile(file).extractall(there)
        assert provenance.collect("study run", datetime.now(UTC), there)["git"] == state


def test_our_own_checkout_is_small_and_whole(config: StudyConfig) -> None:
    package = job_package(config)
    assert {"study/__main__.py", "trainables/actors/lora_trial.py", "search_spaces/quick.yaml"} <= set(package.files)
    assert sum(path.stat().st_size for path in package.files.values()) < 10 * 2**20
    assert set(code_package().files) == {name for name in package.files if not name.startswith("job/")}


def test_the_study_in_the_package_is_the_one_here_with_its_data_beside_it(tmp_path: Path, config: StudyConfig) -> None:
    package = write_package(job_package(config, checkout(tmp_path / "checkout")), tmp_path / "package.zip")
    there = tmp_path / "there"
    zipfile.ZipFile(package).extractall(there)
    found = load_study(there / JOB_STUDY_FILE)
    assert (found.name, found.space, found.search, found.trial.training) == (
        config.name, config.space, config.search, config.trial.training,
    )  # fmt: skip
    train = Path(str(found.trial.dataset.train_file))
    assert train == there / "job" / "train_file.jsonl"
    assert train.read_text() == (tmp_path / "rows.jsonl").read_text()


def test_the_same_content_makes_the_same_bytes(tmp_path: Path, config: StudyConfig) -> None:
    package = job_package(config, checkout(tmp_path / "checkout"))
    first = write_package(package, tmp_path / "a.zip").read_bytes()
    (tmp_path / "checkout" / "study" / "run.py").touch()
    assert write_package(package, tmp_path / "b.zip").read_bytes() == first


def test_data_that_are_too_large_are_refused_with_the_remedy(
    config: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_DATA_BYTES", 10)
    with pytest.raises(ConfigError, match=r"at most 10 B together.*where all nodes can read them"):
        job_package(config)
