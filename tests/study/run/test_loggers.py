"""Opt-in loggers: asked for by name, refused where their package is missing, and none of them by default."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from study.config.study_config import ConfigError, load_study, to_yaml_text
from study.run import loggers
from study.run.loggers import check_loggers, tune_loggers
from tests.support.made_up_studies import write_study_file


def test_none_by_default_and_names_survive_the_study_file(tmp_path: Path) -> None:
    assert load_study(write_study_file(tmp_path)).loggers == ()
    config = load_study(write_study_file(tmp_path, loggers=["mlflow", "tensorboard"]))
    assert config.loggers == ("mlflow", "tensorboard")
    (tmp_path / "again.yaml").write_text(to_yaml_text(config))
    assert load_study(tmp_path / "again.yaml") == config


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"loggers\.0 .* must be one of tensorboard, mlflow, wandb"):
        load_study(write_study_file(tmp_path, loggers=["comet"]))


def test_a_missing_package_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "LOGGER_PACKAGES", {"mlflow": "no_such_package", "tensorboard": "json"})
    check_loggers("study.yaml", ["tensorboard"])
    with pytest.raises(ConfigError, match=r"loggers\.1 = .*needs the package no_such_package.*pip install"):
        check_loggers("study.yaml", ["tensorboard", "mlflow"])


class MadeUpTrial:
    """What the logger asks of one of Tune's trials."""

    trial_id, local_path = "t1", ""
    evaluated_params: ClassVar[dict[str, float]] = {}

    def init_local_path(self) -> None:
        """Its folder is there."""


def test_tensorboard_gets_a_trials_numbers(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    assert tune_loggers([], "x", tmp_path) == []
    (logger,) = tune_loggers(["tensorboard"], "x", tmp_path)
    trial = MadeUpTrial()
    trial.local_path = str(tmp_path)
    logger.log_trial_result(1, trial, {"training_iteration": 1, "perplexity": 12.5, "timesteps_total": 5})
    logger.log_trial_end(trial)
    events = [file.read_bytes() for file in tmp_path.glob("events*")]
    assert len(events) == 1
    assert b"perplexity" in events[0]


class Fragile:
    """A logger that fails from its second result on."""

    def __init__(self) -> None:
        self.got: list[str] = []

    def on_trial_result(self, iteration: int, **info: object) -> None:
        """Takes one result."""
        if self.got:
            raise ConnectionError("the server\nis away")
        self.got.append(f"result {iteration}")

    def on_experiment_end(self, **info: object) -> None:
        """Notes the end."""
        self.got.append("end")


def test_a_logger_that_fails_costs_nothing_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fragile = Fragile()
    monkeypatch.setitem(loggers._MAKERS, "wandb", lambda study, directory: fragile)
    (logger,) = tune_loggers(["wandb"], "x", tmp_path)
    for number in (1, 2, 3):
        logger.on_trial_result(number, trial="t")
    logger.on_experiment_end(trials=[])
    assert fragile.got == ["result 1"]
    (said,) = capsys.readouterr().out.splitlines()
    assert said == (
        "The logger wandb failed and gets no more results, all of which are kept: ConnectionError: the server is away"
    )
