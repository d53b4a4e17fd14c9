"""What is kept of a run's circumstances, and what is not: no secret reaches the disk."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from study.environment import provenance
from study.environment.provenance import PACKED_GIT_FILE, collect, git_state, packed_git_state, redacted

STARTED = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
HUB_TOKEN = "hf_" + "AbCdEf" * 5


def git(folder: Path, *arguments: str) -> str:
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **identity, **alone})
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "file").write_text("one")
    git(folder, "add", "file")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def test_what_is_written_is_json_with_all_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", HUB_TOKEN)
    command = f"python -m study run a.yaml --set hub.token={HUB_TOKEN}"
    file = provenance.write(tmp_path, collect(command, STARTED))
    assert file == tmp_path / "provenance.json"
    text = file.read_text(encoding="utf-8")
    assert HUB_TOKEN not in text
    facts = json.loads(text)
    assert facts["started"] == "2026-01-31T12:00:00+00:00"
    assert facts["command"] == "python -m study run a.yaml --set 'hub.token=***'"
    assert {"python", "torch", "ray", "optuna", "pyyaml"} <= set(facts["versions"])
    assert facts["hardware"]["memory_bytes"] > 0
    assert facts["hardware"]["cores"] >= 1
    assert facts["hardware"]["cpu"]
    assert facts["platform"]
    assert any(one.startswith("numpy==") for one in facts["other_packages"])


def test_git_state(checkout: Path) -> None:
    assert git_state(checkout) == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}
    (checkout / "file").write_text("two")
    state = git_state(checkout)
    assert state is not None
    assert state["dirty"] is True


def test_a_copy_in_someone_elses_repository_has_no_commit(checkout: Path) -> None:
    (checkout / "copy").mkdir()
    assert git_state(checkout / "copy") is None


@pytest.mark.parametrize("text", ["", "null", "[]", "{"])
def test_a_package_that_took_no_commit_along_has_none(tmp_path: Path, text: str) -> None:
    assert packed_git_state(tmp_path) is None  # Ray's own `ray job submit` makes no such file
    (tmp_path / "job").mkdir()
    (tmp_path / PACKED_GIT_FILE).write_text(text)
    assert packed_git_state(tmp_path) is None


def test_no_repository_no_commit_and_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert git_state(tmp_path) is None  # no commit yet
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert git_state(tmp_path) is None


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("study run a.yaml --set training.max_steps=20", "study run a.yaml --set training.max_steps=20"),
        ("study run --set dataset.max_tokens=128", "study run --set dataset.max_tokens=128"),
        ("study run --set generation.max_new_tokens=24", "study run --set generation.max_new_tokens=24"),
        ("study run --set hub.token=abc", "study run --set 'hub.token=***'"),
        ("study run --set=hub.api_key=abc=def", "study run '--set=hub.api_key=***'"),
        ("study run --set 'hub.Password=a b c'", "study run --set 'hub.Password=***'"),
        ("study run --token abc a.yaml", "study run --token '***' a.yaml"),
        ("study run --secret=abc", "study run '--secret=***'"),
        ("study run --set 'hub={token: abc, seed: 1}'", "study run --set 'hub={token: ***, seed: 1}'"),
        (
            f"study run --set base_model.path=https://u:{HUB_TOKEN}@hub",
            "study run --set 'base_model.path=https://u:***@hub'",
        ),
        ("study run 'two words'", "study run 'two words'"),
        ("study run 'no end", "study run ''\"'\"'no' end"),
    ],
)
def test_redacted(command: str, shown: str) -> None:
    assert redacted(command, {}) == shown


def test_values_of_secret_variables_are_hidden_wherever_they_stand() -> None:
    environment = {"MY_API_KEY": "s3cretvalue", "HOME": "/home/someone", "SHORT_TOKEN": "a"}
    command = "study run /home/someone/a.yaml --out x-s3cretvalue-y"
    assert redacted(command, environment) == "study run /home/someone/a.yaml --out 'x-***-y'"
