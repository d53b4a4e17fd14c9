"""Foreign packages with our rooms' names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from study.checkout import CHECKOUT, ROOMS, foreign_rooms, shadowing


def package(folder: Path, name: str) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text("")
    return folder / name


def test_our_own_rooms_are_found() -> None:
    assert shadowing() is None
    assert (CHECKOUT / "pyproject.toml").is_file()


def test_other_rooms_than_the_checkouts_are_named(tmp_path: Path) -> None:
    found = shadowing(tmp_path)
    assert found is not None
    assert found.places == {room: CHECKOUT / room for room in ROOMS}
    assert f"must be those of {tmp_path}; search_spaces is {CHECKOUT / 'search_spaces'}" in found.found
    assert found.remedy.startswith("Run python -m study in that folder")
    assert str(found) == f"{found.found} {found.remedy}"


def test_a_foreign_analysis_that_comes_first_is_refused_by_every_command(tmp_path: Path) -> None:
    foreign = package(tmp_path, "analysis")
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from study.cli.main import main\n"
        "sys.exit(main(['plan', 'nothing.yaml']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=CHECKOUT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert f"analysis is {foreign}" in done.stderr
    assert "Traceback" not in done.stderr


def test_foreign_rooms_behind_ours_are_listed(tmp_path: Path) -> None:
    behind = package(tmp_path / "site", "study")
    module = tmp_path / "other" / "analysis.py"
    module.parent.mkdir()
    module.write_text("")
    path = [
        str(CHECKOUT),
        str(tmp_path / "site"),
        str(tmp_path / "other"),
        str(tmp_path / "site"),
        str(tmp_path / "none"),
    ]
    assert foreign_rooms(path=path) == (behind, module)


def test_nothing_foreign_on_this_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(CHECKOUT)])
    assert foreign_rooms() == ()
