"""The files of a job: the rooms, the resolved study, its data; nothing else of the checkout."""

from __future__ import annotations

import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from study.cluster import job_package as module
from study.cluster.job_package import JOB_STUDY_FILE, code_package, job_package, package_text, write_package
from study.config.study_config import ConfigError, StudyConfig, load_study
from study.environment import provenance
from study.environment.provenance import PACKED_GIT_FILE
from study.records.units import format_bytes
from tests.support.border.planted import CODE, git, plant
from tests.support.made_up_studies import write_study_file

EMPTY_BLOB = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"  # git's name for a file of no bytes


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


def test_what_leaves_is_said_with_its_size_and_what_stays_too(tmp_path: Path, config: StudyConfig) -> None:
    here = plant(tmp_path / "checkout")
    (here / "study" / "big.py").unlink()
    git(here, "init", "-q")
    git(here, "add", *CODE)
    package = job_package(config, here)
    said = package_text(package).split("\n")
    code_bytes = sum((here / name).stat().st_size for name in CODE)
    rows = tmp_path / "rows.jsonl"
    assert said[0] == f"Sent: {len(CODE)} files of code that git tracks ({format_bytes(code_bytes)})"
    assert said[1] == f"Sent: {rows} as job/train_file.jsonl ({format_bytes(rows.stat().st_size)})"
    assert said[2].startswith(f"Not sent: {len(package.untracked)} files that git does not track (")
    assert said[2].endswith("; `git add` what the study needs.")
    assert f"and {len(package.untracked) - 5} more" in said[2]
    packed = zipfile.ZipFile(write_package(package, tmp_path / "package.zip")).namelist()
    assert set(packed) == {*CODE, "job/train_file.jsonl", JOB_STUDY_FILE, PACKED_GIT_FILE}


def test_code_of_a_gigabyte_is_refused_before_it_is_read(tmp_path: Path, config: StudyConfig) -> None:
    here = plant(tmp_path / "checkout")
    git(here, "init", "-q")
    git(here, "add", *CODE)
    git(here, "update-index", "--add", "--cacheinfo", f"100644,{EMPTY_BLOB},study/big.py")  # tracked, and large since
    for package in (lambda: job_package(config, here), lambda: code_package(here)):
        with pytest.raises(ConfigError, match=r"study/big.py: must be at most 50 MiB of code together.*1 GiB"):
            package()
