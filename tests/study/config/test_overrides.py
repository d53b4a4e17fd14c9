"""Overrides, right and wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from study.cli.main import main
from study.config.study_config import (
    ConfigError,
    load_study,
)
from study.errors import WRONG_INPUT
from tests.support.study_files import ABSENT, faults_of, write_study
from trainables.settings import (
    TrainingSettings,
)

GIB = 2**30


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("name=other", lambda config: config.name == "other"),
        ("name='007'", lambda config: config.name == "007"),
        ("search.trials=20", lambda config: config.search.trials == 8),
        ("training.max_steps=3", lambda config: config.trial.training.max_steps == 3),
        ("training.learning=1", None),
        ("hardware.memory_limit=8 GiB", lambda config: config.trial.hardware.memory_limit_bytes == 8 * GIB),
        ("seeds=[1, 2]", lambda config: config.seeds == (1, 2)),
        ("objectives.0.reference=20", lambda config: config.objectives[0].reference == 20),
        ("space.rank=16", lambda config: config.space.grid([0])[0].rank == 16),
        ("space=search_spaces/quick.yaml", lambda config: config.space.precisions() == ("bf16", "nf4")),
        (" name = a=b", None),
        ("generation.prompts=[a=b]", lambda config: config.trial.generation.prompts == ("a=b",)),
        ("training={epochs: 2}", lambda config: config.trial.training.epochs == 2),
    ],
)
def test_overrides(tmp_path: Path, override: str, read: Any) -> None:
    file = write_study(tmp_path)
    if read is None:
        with pytest.raises(ConfigError) as caught:
            load_study(file, [override])
        assert [fault.file for fault in caught.value.faults] == ["--set"]
    else:
        assert read(load_study(file, [override]))


def test_later_overrides_win_and_the_file_stays(tmp_path: Path) -> None:
    file = write_study(tmp_path)
    before = file.read_bytes()
    assert load_study(file, ["training.epochs=2", "training.epochs=3"]).trial.training.epochs == 3
    assert load_study(file, ["training.epochs=2", "training={max_steps: 4}"]).trial.training == TrainingSettings(
        max_steps=4
    )
    assert file.read_bytes() == before


def test_an_override_may_mend_the_file(tmp_path: Path) -> None:
    file = write_study(tmp_path, {"training.epochs": -1, "name": ABSENT})
    config = load_study(file, ["training.epochs=1", "name=mended"])
    assert (config.name, config.trial.training.epochs) == ("mended", 1.0)


@pytest.mark.parametrize(
    ("override", "key", "rule", "remedy"),
    [
        ("search.seed", "", "must be KEY.PATH=VALUE", "--set search.seed=1"),
        ("=1", "", "must be KEY.PATH=VALUE", "--set search.seed=1"),
        (" =1", "", "must be KEY.PATH=VALUE", "--set search.seed=1"),
        ("search.=1", "", "must be KEY.PATH=VALUE", "--set search.seed=1"),
        ("search..seed=1", "", "must be KEY.PATH=VALUE", "--set search.seed=1"),
        (".seed=1", "", "must be KEY.PATH=VALUE", "--set search.seed=1"),
        ("search.sed=1", "search.sed", "no key of search", "Did you mean `seed`?"),
        ("serch.seed=1", "serch", "no key of a study file", "Did you mean `search`?"),
        ("serch.deep.seed=1", "serch", "no key of a study file", "Did you mean `search`?"),
        ("search.seed=x", "search.seed", "whole number", "`seed: 0`"),
        ("search=3", "search", "keys and values", "below `search`"),
        ("training.epochs=", "training.epochs", "number above 0", "`epochs: 1.0`"),
        ("training.schedule=[", "training.schedule", "must be YAML", "brackets"),
        ("training.schedule=!!str x", "training.schedule", "tag", "without a tag"),
        ("name=a: b: c", "name", "must be YAML", "colons"),
        ("name=\x1b", "name", "control characters", "UTF-8"),
        ("name.first=1", "name.first", "must end at `name`", "--set name=VALUE"),
        ("objectives.2.reference=1", "objectives.2.reference", "a number under 2", "--set objectives.0"),
        ("objectives.x=1", "objectives.x", "a number under 2", "--set objectives.0"),
        ("objectives.-1=1", "objectives.-1", "a number under 2", "--set objectives.0"),
        (f"objectives.{'9' * 5000}=1", f"objectives.{'9' * 5000}", "a number under 2", "--set objectives.0"),
        ("objectives.0.metric=x", "objectives.0.metric", "one of perplexity", "`metric: perplexity`"),
        ("space=nowhere.yaml", "space", "looked for", "Check its path"),
        ("space.rank=0", "space.rank", "integer from 1", "{choice: [8, 64]}"),
        ("hardware.memory_limit=8", "hardware.memory_limit", "with its unit", "`8 B`"),
        ("name=../x", "name", "plain file name", "my-study"),
    ],
)
def test_a_wrong_override(
    override: str, key: str, rule: str, remedy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_study(tmp_path)
    (fault,) = faults_of(file, override)
    assert (fault.file, fault.key) == ("--set", key)
    assert rule in fault.rule
    assert remedy in fault.remedy
    assert main(["plan", str(file), "--set", override]) == WRONG_INPUT
    assert capsys.readouterr().err == f"{fault}\n"


def test_an_override_does_not_reach_into_a_space_file(tmp_path: Path) -> None:
    (fault,) = faults_of(write_study(tmp_path, {"space": "search_spaces/quick.yaml"}), "space.rank=8")
    assert (fault.file, fault.key, fault.value) == ("--set", "space.rank", 8)
    assert "must not reach into a space file; space is 'search_spaces/quick.yaml'" in fault.rule
    assert fault.remedy == "Write the space inline in the study file, or name another file: --set space=PATH."


def test_only_what_came_from_overrides_is_blamed_on_them(tmp_path: Path) -> None:
    file = write_study(tmp_path, {"training.epochs": 0, "search.seed": -1, "seeds": [-1]})
    faults = faults_of(file, "training.evaluations=0", "search={seed: -2, algorithm: x}", "hardware.gpus=0")
    assert {(fault.file, fault.key) for fault in faults} == {
        (str(file), "seeds.0"),
        ("--set", "search.algorithm"),
        ("--set", "search.seed"),
        (str(file), "training.epochs"),
        ("--set", "training.evaluations"),
        ("--set", "hardware.gpus"),
    }


def test_a_broken_file_and_a_broken_override_are_said_together(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("a: [", encoding="utf-8")
    assert [(fault.file, fault.key) for fault in faults_of(tmp_path / "study.yaml", "x")] == [
        (str(tmp_path / "study.yaml"), "line 1"),
        ("--set", ""),
    ]
