"""What a trial in `optuna.db` says of itself, and whether it is one of the search's own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from search_spaces.trial_config import TrialConfig
from study.errors import printable
from study.json_checks import fields, items, number, optional, text

STATES = {"complete": TrialState.COMPLETE, "stopped": TrialState.PRUNED}  # Optuna's, by a trial's status; others fail
REASON_CHARACTERS = 200
_ATTRIBUTES = fields(
    {
        **dict.fromkeys(("trial_id", "earlier"), text(4096, empty=False)),
        "values_so_far": optional(items(number())),
        "train_steps": optional(number(0)),
    }
)


def parted(trials: Iterable[FrozenTrial], objectives: int) -> tuple[list[FrozenTrial], dict[int, str]]:
    """The trials that a search can use, and why it cannot use the others, by Optuna's number.

    Usable are those that the search asked for and those of earlier studies, with their configuration and as many values
    as there are objectives; of two that have one trial's name the first.
    """
    own: list[FrozenTrial] = []
    foreign: dict[int, str] = {}
    names: set[str] = set()
    for trial in trials:
        name = trial.user_attrs.get("trial_id")
        reason = _reason(trial, objectives) or (f"{name} is there twice" if name is not None and name in names else "")
        if reason:
            foreign[trial.number] = reason
        else:
            own.append(trial)
            names.update([name] if name is not None else [])
    return own, foreign


def _reason(trial: FrozenTrial, objectives: int) -> str:
    attributes = trial.user_attrs
    if wrong := _ATTRIBUTES(attributes, ""):
        return wrong
    if "trial_id" not in attributes and "earlier" not in attributes:
        return "this study's search did not ask for it"
    if "config" not in attributes:
        return "it has no configuration"
    try:
        TrialConfig.from_dict(attributes["config"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"its configuration cannot be one: {printable(str(error), REASON_CHARACTERS)}"
    if any(values is not None and len(values) != objectives for values in _values(trial)):
        return f"it must have {objectives} values, one an objective"
    if trial.state == TrialState.COMPLETE and not all(map(math.isfinite, trial.values or ())):
        return "its values must be finite"
    return ""


def _values(trial: FrozenTrial) -> tuple[list[float] | None, ...]:
    told = trial.values if trial.state == TrialState.COMPLETE else None
    return told, trial.user_attrs.get("values_so_far")


def asked_attributes(trial_id: str, config: TrialConfig) -> dict[str, Any]:
    """What a trial that the search asked for says of itself."""
    return {"trial_id": trial_id, "config": config.to_dict(), "seed": config.seed}


def earlier_attributes(source: str, config: TrialConfig) -> dict[str, Any]:
    """What a trial of an earlier study says of itself: its study directory and name, and its configuration."""
    return {"earlier": source, "config": config.to_dict()}


def ending_attributes(
    status: str, reason: str | None, train_steps: int | None, values: Sequence[float] | None
) -> dict[str, Any]:
    """How a trial ended; a stopped one's objective values with the optimizer steps after which it had them."""
    attributes: dict[str, Any] = {"status": status, "reason": reason}
    if status == "stopped":
        attributes |= {"train_steps": train_steps, "values_so_far": None if values is None else list(values)}
    return attributes


def trial_id_of(trial: FrozenTrial) -> str | None:
    """The name under which the search asked for the trial; None for a trial of an earlier study."""
    found: str | None = trial.user_attrs.get("trial_id")
    return found


def source_of(trial: FrozenTrial) -> str | None:
    """The study directory and name of an earlier study's trial; None for one of this study."""
    found: str | None = trial.user_attrs.get("earlier")
    return found


def is_complete(trial: FrozenTrial) -> bool:
    """Whether the trial ended with all that it was to measure."""
    return bool(trial.state == TrialState.COMPLETE)


def config_of(trial: FrozenTrial) -> TrialConfig:
    """The configuration that was asked for, or that an earlier study tried."""
    return TrialConfig.from_dict(trial.user_attrs["config"])


def known_before(history: Iterable[FrozenTrial]) -> set[TrialConfig]:
    """The configurations that earlier studies tried."""
    return {config_of(trial) for trial in history if source_of(trial) is not None}
