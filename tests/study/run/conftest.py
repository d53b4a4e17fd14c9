"""What the tests of a study's beginning, end and continuation share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from study.cluster.ray_start import RayStart
from study.config.study_config import StudyConfig, load_study
from study.run import lifecycle
from study.run.study_run import StudyRun
from tests.support.made_up_runs import Run
from tests.support.made_up_studies import write_study_file


@pytest.fixture
def config(tmp_path: Path) -> StudyConfig:
    """A study of four trials."""
    return load_study(write_study_file(tmp_path))


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The studies that were checked, which takes no model here."""
    checked: list[str] = []
    monkeypatch.setattr(lifecycle, "check", lambda config, here: checked.append(config.file))
    return checked


class Starting(RayStart):
    """A Ray that only notes when it is to begin, and what was checked by then."""

    def __init__(self, checked: list[str]) -> None:
        super().__init__()
        self.checked = checked
        self.begun: list[int] = []

    def begin(self) -> None:
        self.begun.append(len(self.checked))


@pytest.fixture
def ray(checks: list[str]) -> Starting:
    """A Ray that only notes when it is to begin, and how many checks there were by then."""
    return Starting(checks)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what takes time and has tests of its own."""
    monkeypatch.setattr("study.environment.provenance.collect", lambda command, now: {})
    monkeypatch.setattr("analysis.report.page.write_report", lambda directory: directory / "report.html")


@pytest.fixture
def run_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[Run], None]:
    """Sets what stands in for the run."""

    def set_run(run: Run) -> None:
        def then_meanwhile(study: StudyRun, show: Callable[[str], None], meanwhile: Callable[[], None]) -> None:
            run(study, show)
            meanwhile()

        monkeypatch.setattr("study.run.driver.run_study", then_meanwhile)

    return set_run
