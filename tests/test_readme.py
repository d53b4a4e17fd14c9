"""The README names every module, and its study file and search space are ones that load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from search_spaces.parameters import parse_space
from study.config.study_config import load_study
from tests.support.places import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("room", ["search_spaces", "trainables", "study", "analysis", "tests/benchmarks"])
def test_the_tree_names_every_module_and_no_other(room: str) -> None:
    tree = README.split(f"\n{room}/ ", 1)[1].split("\n```", 1)[0]
    own = re.split(r"\n(?=\S)", tree, maxsplit=1)[0]
    named = set(re.findall(r"^  (\S+\.py) ", own, flags=re.MULTILINE))
    there = {file.name for file in (ROOT / room).glob("*.py")} - {"__init__.py"}
    assert named == there


def block(heading: str) -> str:
    return README.split(heading, 1)[1].split("```yaml\n", 1)[1].split("```", 1)[0]


def test_the_study_file_of_the_readme_loads(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    text = block("### The study file, key by key").replace("../../search_spaces/", "search_spaces/")
    file.write_text(text, encoding="utf-8")
    assert load_study(file).search.trials == 32


def test_the_search_space_of_the_readme_loads() -> None:
    space = parse_space(yaml.safe_load(block("### The search space")))
    assert len(space.grid([0])) == 12
