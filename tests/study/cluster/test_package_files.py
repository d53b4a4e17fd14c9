"""What leaves this machine: the code that git tracks, and nothing that somebody left in our folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from study.checkout import CHECKOUT, ROOMS
from study.cluster.package_files import checkout_files, is_private, rayignore_text
from tests.support.border.planted import CODE, IN_NESTED, PLANTED, git, plant
from tests.support.places import ROOT

DATA = {"study/studies/patients.jsonl", "study/studies/patients.csv", "study/big.py", "study/notes.txt"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return plant(tmp_path / "checkout")


def test_git_says_what_is_code_and_nothing_planted_goes(checkout: Path) -> None:
    git(checkout, "init", "-q")
    git(checkout, "add", *CODE)
    (checkout / "study" / "run" / "driver.py").write_text("changed since")
    (checkout / "study" / "new.py").write_text("not tracked")
    found = checkout_files(checkout)
    assert set(found.files) == set(CODE)
    assert found.by_git
    assert {"study/new.py", "study/.env", "study/studies/patients.jsonl"} <= set(found.untracked)


def test_what_git_tracks_by_mistake_does_not_go_either(checkout: Path) -> None:
    (checkout / "study" / "big.py").write_text("small")  # else git reads a gigabyte
    git(checkout, "init", "-q")
    git(checkout, "add", "--force", ".")
    found = set(checkout_files(checkout).files)
    # Data that git tracks are the user's decision, as are its folders of any other name.
    assert found - set(CODE) <= DATA
    assert set(CODE) <= found


def test_without_git_endings_say_what_is_code(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(checkout.parent))
    for path in (os.environ["PATH"], str(checkout / "no-git-here")):
        monkeypatch.setenv("PATH", path)
        found = checkout_files(checkout)
        assert set(found.files) == {*CODE, "study/big.py"} - {"study/Dockerfile"}
        assert not found.by_git
        assert found.untracked == ()


@pytest.mark.parametrize("name", [*PLANTED, *IN_NESTED])
def test_each_planted_file_is_left_out_with_git_and_without(
    name: str, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert os.path.lexists(checkout / name)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(checkout.parent))
    assert name not in checkout_files(checkout).files
    git(checkout, "init", "-q")
    git(checkout, "add", *CODE)
    assert name not in checkout_files(checkout).files


def test_files_behind_a_linked_folder_stay(checkout: Path) -> None:
    outside = checkout.parent / "outside"
    (checkout / "study" / "run").rename(outside)
    (checkout / "study" / "run").symlink_to(outside)
    git(checkout, "init", "-q")
    git(checkout, "add", *(name for name in CODE if not name.startswith("study/run/")))
    assert "study/run/driver.py" not in checkout_files(checkout).files


@pytest.mark.parametrize(
    "name",
    ["study/.env", "study/.cache/a.py", "study/id_rsa.old", "a/server.PEM", "a/x.key", "study/secrets.yaml",
     "a/hf_token", "a/credentials.json", "a/service-account-key.json", "a/my_password.txt", "a/adapters/b.py",
     "study/runs/x/results.jsonl", "a/model.safetensors", "a/optuna.db", "a/x.egg-info/PKG-INFO", "a/prod.env",
     "a/__pycache__/b.py", "a/.netrc"],
)  # fmt: skip
def test_private_by_name(name: str) -> None:
    assert is_private(name)


def test_nothing_of_our_own_is_private() -> None:
    found = checkout_files(CHECKOUT)
    if found.by_git:
        listed = git(CHECKOUT, "ls-files", "--", "pyproject.toml", *ROOMS).split("\n")
        assert [name for name in listed if is_private(name)] == []


# -- the same rules for Ray's own command ------------------------------------------------------------------------------


def test_rayignore_is_written_from_the_rules() -> None:
    text = (ROOT / ".rayignore").read_text(encoding="utf-8")
    assert text == rayignore_text(), "run: python -m study.cluster.package_files > .rayignore"


def test_ray_leaves_the_planted_at_home_by_it(checkout: Path) -> None:
    """By Ray's own walk over the folder; of links, which .rayignore has no words for, it takes what they lead to."""
    packaging = pytest.importorskip("ray._private.runtime_env.packaging")
    (checkout / ".rayignore").write_text(rayignore_text(), encoding="utf-8")
    taken: set[str] = set()
    packaging._dir_travel(
        checkout, [], lambda path: taken.add(path.relative_to(checkout).as_posix()), include_gitignore=True
    )
    files = {name for name in taken if (checkout / name).is_file()}
    links = {name for name in PLANTED if (checkout / name).is_symlink()}
    assert files & (set(PLANTED) - links) == set()
    assert set(CODE) <= files
