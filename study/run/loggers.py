"""Opt-in loggers: pass what trials report to TensorBoard, MLflow or Weights & Biases as well.

A new one is a function and a line of `_MAKERS` here, and its package in `LOGGER_PACKAGES` of
`study.config.trial_sections`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from study.config.trial_sections import LOGGER_PACKAGES
from study.errors import ConfigError, ConfigFault
from study.output import say


def check_loggers(file: str, names: Sequence[str]) -> None:
    """Raises ConfigError with a fault for every logger whose package is not here."""
    faults = []
    for index, name in enumerate(names):
        package = LOGGER_PACKAGES[name]
        if importlib.util.find_spec(package) is None:
            remedy = f"Run: pip install {package}, or leave it out."
            faults.append(ConfigFault(file, f"loggers.{index}", name, f"needs the package {package}", remedy))
    if faults:
        raise ConfigError(faults)


def tune_loggers(names: Sequence[str], study: str, directory: Path) -> list[Any]:
    """Returns Ray Tune's callbacks of those names.

    MLflow writes where `MLFLOW_TRACKING_URI` says, else beside the results; Weights & Biases takes its key from
    `WANDB_API_KEY` or its own login.
    """
    return [_tolerated(name, _MAKERS[name](study, directory)) for name in names]


def _tolerated(name: str, logger: Any) -> Any:
    """The logger, whose failure costs the study nothing: it is told once, and the logger gets nothing more.

    Its setup may fail: then nothing has been trained yet.
    """
    failed: list[Exception] = []

    def passing_on(event: Callable[..., None]) -> Callable[..., None]:
        def pass_on(*arguments: Any, **info: Any) -> None:
            if failed:
                return
            try:
                event(*arguments, **info)
            except Exception as error:
                failed.append(error)
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                say(f"The logger {name} failed and gets no more results, all of which are kept: {reason}")

        return pass_on

    for event in (one for one in dir(logger) if one.startswith("on_")):
        setattr(logger, event, passing_on(getattr(logger, event)))
    return logger


def _tensorboard(study: str, directory: Path) -> Any:
    from ray.tune.logger import TBXLoggerCallback

    return TBXLoggerCallback()


def _mlflow(study: str, directory: Path) -> Any:
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    place = os.environ.get("MLFLOW_TRACKING_URI") or (directory / "mlflow").as_uri()
    return MLflowLoggerCallback(tracking_uri=place, experiment_name=study)


def _wandb(study: str, directory: Path) -> Any:
    from ray.air.integrations.wandb import WandbLoggerCallback

    return WandbLoggerCallback(project=study, group=directory.name)


_MAKERS = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}
