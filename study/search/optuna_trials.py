"""What a study notes on a trial in Optuna's database: its configuration, and how it ended. (no torch, no ray)"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search_spaces.trial_config import TrialConfig

STATES = {"complete": TrialState.COMPLETE, "stopped": TrialState.PRUNED}  # of Optuna; all others fail


def config_of(trial: FrozenTrial) -> TrialConfig:
    """The configuration that was asked for, or that an earlier study tried."""
    return TrialConfig.from_dict(trial.user_attrs["config"])


def known_before(history: Iterable[FrozenTrial]) -> set[TrialConfig]:
    """The configurations that earlier studies know."""
    return {config_of(trial) for trial in history if "earlier" in trial.user_attrs}


def ending_attributes(
    status: str, reason: str | None, train_steps: int | None, values: Sequence[float] | None
) -> dict[str, Any]:
    """How a trial ended; a stopped one's objective values with the optimizer steps that they were reached in."""
    attributes: dict[str, Any] = {"status": status, "reason": reason}
    if status == "stopped":
        attributes |= {"train_steps": train_steps, "values_so_far": None if values is None else list(values)}
    return attributes
