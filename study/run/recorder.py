"""Makes the record of each trial that Ray Tune says has ended, whatever way it ended."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray import tune

from search_spaces.trial_config import TrialConfig
from study.records.layout import adapter_place
from study.records.record import TrialRecord
from study.secrets import masked

Append = Callable[[TrialRecord], Any]
Start = Callable[[str, TrialConfig], Any]
StopReason = Callable[[str], str | None]  # why a scheduler has stopped a trial; None where it has not


def record_of(study: str, trial_id: str, config: TrialConfig, outcome: dict[str, Any]) -> TrialRecord:
    """Returns the record of an outcome, as a trial's last result carries it."""
    known = dict(outcome)
    has_adapter = known.pop("has_adapter")
    known["curve"], known["samples"] = tuple(map(_finite, known["curve"])), tuple(known["samples"])
    known["measurements"] = _finite(known["measurements"])
    adapter = adapter_place(trial_id) if has_adapter else None
    known |= {name: masked(known[name]) for name in ("reason", "error") if isinstance(known.get(name), str)}
    return TrialRecord(study=study, trial_id=trial_id, config=config, adapter=adapter, **known)


def outcome_of(result: Mapping[str, Any], stop_reason: str | None) -> dict[str, Any] | None:
    """Returns an ended trial's outcome, from its last result; None where it left none.

    Of a trial that a scheduler has stopped, with its reason, that is what it came to so far.
    """
    if "outcome" in result:
        outcome: dict[str, Any] = json.loads(result["outcome"])
        return outcome
    if stop_reason is None or not result.get("so_far"):
        return None
    return {**json.loads(result["so_far"]), "reason": stop_reason}


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, with None for NaN and infinity (a diverged trial's): a missing number is null."""
    lost = {name for name, value in values.items() if isinstance(value, float) and not math.isfinite(value)}
    return {name: None if name in lost else value for name, value in values.items()}


def failed_record(study: str, trial_id: str, config: TrialConfig, error: str) -> TrialRecord:
    """Returns the record of a trial whose own process failed for good."""
    error = masked(error)
    reason = error.strip().splitlines()[-1] if error.strip() else "the trial's process died"
    return TrialRecord(study=study, trial_id=trial_id, status="failed", config=config, reason=reason, error=error)


class Recorder(tune.Callback):  # type: ignore[misc]
    """Appends a record when Tune says that a trial is over; `start` is told when one begins.

    `stop_reason` is asked why a trial that gave no outcome of its own was stopped.
    """

    def __init__(
        self,
        study: str,
        append: Append,
        start: Start = lambda trial_id, config: None,
        stop_reason: StopReason = lambda trial_id: None,
    ) -> None:
        self._study = study
        self._append = append
        self._start = start
        self._stop_reason = stop_reason

    def __getstate__(self) -> dict[str, Any]:
        """Returns next to nothing: Tune keeps copies of its callbacks, and a resumed study makes its own."""
        return {"_study": self._study}

    def on_trial_start(self, iteration: int, trials: Sequence[Any], trial: Any, **info: Any) -> None:
        """Tells `start` of a trial whose process begins, or begins again."""
        self._start(*_identity(trial))

    def on_trial_complete(self, iteration: int, trials: Sequence[Any], trial: Any, **info: Any) -> None:
        """Records a trial that has given its last result, or that a scheduler has stopped."""
        trial_id, config = _identity(trial)
        outcome = outcome_of(trial.last_result or {}, self._stop_reason(trial_id))
        if outcome is not None:
            self._append(record_of(self._study, trial_id, config, outcome))
        else:
            self._append(failed_record(self._study, trial_id, config, "the trial ended without an outcome"))

    def on_trial_error(self, iteration: int, trials: Sequence[Any], trial: Any, **info: Any) -> None:
        """Records a trial whose process has failed more often than it may be restarted."""
        trial_id, config = _identity(trial)
        self._append(failed_record(self._study, trial_id, config, _error_text(trial)))


def _identity(trial: Any) -> tuple[str, TrialConfig]:
    return trial.config["trial_id"], TrialConfig.from_dict(trial.config["config"])


def _error_text(trial: Any) -> str:
    error = trial.get_error() if hasattr(trial, "get_error") else None
    return str(error) if error else "the trial's process died"
