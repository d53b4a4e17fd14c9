"""The rooms stay small and say what is inside: sizes of files and folders, first sentences, and mirrored tests."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from tests.support.places import ROOT

ROOMS = ("search_spaces", "trainables", "study", "analysis")
LONGEST_LINES, MOST_FILES, LONGEST_SENTENCE = 300, 16, 110


def python_files(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    lengths = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in python_files(*ROOMS, "tests")}
    assert len(lengths) > 300
    assert {str(file.relative_to(ROOT)): lines for file, lines in lengths.items() if lines > LONGEST_LINES} == {}


def test_no_folder_holds_more_than_a_screen_of_files() -> None:
    files = [
        file
        for folder in (*ROOMS, "tests")
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith(".")
    ]
    counts = Counter(file.parent.relative_to(ROOT) for file in files)
    assert {str(folder): count for folder, count in counts.items() if count > MOST_FILES} == {}


@pytest.mark.parametrize("room", ROOMS)
def test_every_module_says_first_what_it_does(room: str) -> None:
    """One sentence of at most 110 characters: it is the module's line in the package's map."""
    for file in python_files(room):
        first = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
        assert first.endswith("."), file
        assert "\n" not in first, file
        assert len(first) <= LONGEST_SENTENCE, file
        assert not any(tag in first for tag in ("(no torch", "(pure)", "(RAY)", "(standard library")), file


def test_the_rooms_are_four_packages_and_no_more() -> None:
    assert {file.parent.name for file in ROOT.glob("*/__init__.py")} == {*ROOMS, "tests"}


def test_tests_mirror_the_rooms() -> None:
    """Each package of the rooms that holds modules has its folder of tests, and no other folder there is one."""
    packages = {file.parent.relative_to(ROOT) for file in python_files(*ROOMS) if file.name != "__init__.py"}
    folders = {file.parent.relative_to(ROOT / "tests") for room in ROOMS for file in python_files(f"tests/{room}")}
    assert folders == packages
