"""What the tables of hostile inputs share: a good model and study, and imports that no input's time counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.report.drawing import javascript
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
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's cache and configuration are the test's own, and no cluster is named by the environment."""
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def check(tmp_path: Path, good_model: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Hostile], str]:
    """Runs one hostile input in a folder of its own and returns what was said."""

    def run(hostile: Hostile) -> str:
        (tmp_path / "input").mkdir()
        return holds(hostile, tmp_path / "input", good_model, capsys)

    return run
