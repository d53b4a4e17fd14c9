"""A study's beginning: its directory, and what is refused before there is one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from study.config.study_config import ConfigError, StudyConfig, load_study
from study.run import lifecycle
from tests.support.made_up_runs import COMMAND, begun, kill

pytestmark = pytest.mark.usefixtures("checks")
quick = pytest.mark.usefixtures("quick")  # all but the test of everything that is written


def test_a_study_begins_in_its_own_directory(config: StudyConfig, tmp_path: Path, checks: list[str]) -> None:
    study = begun(config)
    assert study.directory == tmp_path / "storage" / "made-up-20260131-120005"
    assert checks == [config.file]
    assert load_study(study.directory / "study.yaml") == config
    facts = json.loads((study.directory / "provenance.json").read_text())
    assert (facts["command"], facts["started"]) == (COMMAND, "2026-01-31T12:00:05+00:00")
    assert study.store.records() == ()
    kill(study)


@quick
def test_two_studies_of_one_second_get_a_directory_each(config: StudyConfig) -> None:
    first, second = begun(config), begun(config)
    assert second.directory.name == f"{first.directory.name}-2"
    for study in (first, second):
        kill(study)


@quick
def test_an_existing_study_is_refused_with_the_remedy(config: StudyConfig, tmp_path: Path, checks: list[str]) -> None:
    out = tmp_path / "my study"
    kill(begun(config, out))
    with pytest.raises(ConfigError) as caught:
        begun(config, out)
    assert f"python -m study resume '{out}'" in str(caught.value)
    assert len(checks) == 1


@quick
@pytest.mark.parametrize("kind", ["a file", "a full directory", "below a file"])
def test_places_that_cannot_be_a_study(config: StudyConfig, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "a full directory":
        (out / "something").mkdir(parents=True)
    else:
        out.write_text("")
    with pytest.raises(ConfigError, match="--out"):
        begun(config, out / "deeper" if kind == "below a file" else out)


@quick
def test_an_empty_directory_may_become_a_study(config: StudyConfig, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    study = begun(config, tmp_path / "out")
    assert study.directory == tmp_path / "out"
    kill(study)


@quick
def test_what_the_checks_refuse_makes_no_directory(
    config: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(config: StudyConfig, here: bool) -> None:
        raise ConfigError([])

    monkeypatch.setattr(lifecycle, "check", refuse)
    with pytest.raises(ConfigError):
        begun(config)
    assert not (tmp_path / "storage").exists()
