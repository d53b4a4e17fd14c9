"""What the tables of hostile inputs share: a good model and study, and imports that no input's time counts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from analysis.report.javascript import javascript
from study.cli.main import main
from study.errors import DONE
from tests.border.hostile import Hostile, holds
from tests.support.made_up_studies import save_tiny_model, write_study_file


@pytest.fixture(scope="session", autouse=True)
def good_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole folder of a small Llama; planned once, so that each input's time is its own and not the imports'."""
    javascript()  # the engine behind it reserves more address space than an input may
    model = save_tiny_model(tmp_path_factory.mktemp("good") / "model")
    assert main(["plan", str(write_study_file(model.parent, model))]) == DONE
    return model


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path) -> Iterator[None]:
    """The user's cache is the test's own, no cluster is named, and what a command sets does not outlast it.

    In a process of its own a command may set variables, such as Ray's for tokens, which here would reach later tests.
    """
    before = dict(os.environ)
    os.environ["LORA_FRONTIER_CACHE"] = str(tmp_path / "cache")
    os.environ.pop("RAY_ADDRESS", None)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def check(tmp_path: Path, good_model: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Hostile], str]:
    """Runs one hostile input in a folder of its own and returns what was said."""

    def run(hostile: Hostile) -> str:
        (tmp_path / "input").mkdir()
        return holds(hostile, tmp_path / "input", good_model, capsys)

    return run
