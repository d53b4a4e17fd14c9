"""What git knows of the checkout: its commit, and the files that it tracks."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from study.environment.git import git_state, tracked_files, untracked_files


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


def test_git_state(checkout: Path) -> None:
    assert git_state(checkout) == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False}
    (checkout / "file").write_text("two")
    state = git_state(checkout)
    assert state is not None
    assert state["dirty"] is True


def test_a_copy_in_someone_elses_repository_has_no_commit(checkout: Path) -> None:
    (checkout / "copy").mkdir()
    assert git_state(checkout / "copy") is None


def test_no_repository_no_commit_and_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_state(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert git_state(tmp_path) is None  # no commit yet
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert git_state(tmp_path) is None


def test_tracked_files_are_those_of_the_index_as_they_lie_there(checkout: Path) -> None:
    (checkout / "room").mkdir()
    for name in ("room/a b.py", "room/ä.py", "room/new.py", "room/ignored.pyc", "other.py"):
        (checkout / name).write_text("x")
    (checkout / ".gitignore").write_text("*.pyc\n")
    git(checkout, "add", "room/a b.py", "room/ä.py", "other.py")
    (checkout / "room" / "a b.py").write_text("changed")
    assert set(tracked_files(checkout, ["room", "file"])) == {"file", "room/a b.py", "room/ä.py"}
    assert untracked_files(checkout, ["room"]) == ("room/new.py",)
    assert tracked_files(checkout, ["--cached"]) == ()  # a place, and no option


def test_files_of_an_outer_repository_count_where_it_tracks_them(checkout: Path) -> None:
    inner = checkout / "inner"
    inner.mkdir()
    (inner / "a.py").write_text("x")
    assert tracked_files(inner, ["a.py"]) == ()
    git(checkout, "add", "inner/a.py")
    assert tracked_files(inner, ["a.py"]) == ("a.py",)


def test_variables_that_git_sets_for_its_hooks_lead_nowhere_else(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert tracked_files(checkout, ["file"]) == ("file",)
    assert git_state(checkout) is not None
