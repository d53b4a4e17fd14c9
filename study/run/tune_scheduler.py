"""Early stopping as Ray Tune sees it: a scheduler that applies the stopping rule to every result."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from ray.tune.schedulers import FIFOScheduler

from search_spaces.trial_config import TrialConfig
from study.config.search_sections import EarlyStoppingSettings
from study.records.record import TrialRecord
from study.search.early_stopping import Halving, ParetoHalving, PerplexityHalving, Result, replay

MakeHalving = Callable[[int], Halving]
JUDGED = {"pareto_halving": "dominated", "asha": "not among the best"}


class EarlyStopping(FIFOScheduler):  # type: ignore[misc]
    """Runs trials in the order they come, and stops those that the halving says are not worth training on.

    `make` makes the halving for a training of so many optimizer steps, which the first result says in `total_steps`;
    without it no trial is stopped. A result counts where it carries `step` and `perplexity`; memory is its
    `peak_memory_bytes`, and a trial that has not said it continues. `so_far` (an Outcome as JSON), where a result
    carries it, brings the whole curve, so that a trial which continued from a checkpoint stands at every rung that it
    passed before. `records` are the trials of an interrupted study that have ended: they are what the others are judged
    against, so nothing of the scheduler itself must outlive its driver. `judged` says why trials are stopped.

    Tune does not ask about a trial's last result, so a trial that comes to its end is never stopped.
    """

    _supports_buffered_results = False  # a trial must not train on while its verdict waits

    def __init__(
        self, make: MakeHalving | None, records: Iterable[TrialRecord] = (), judged: str = JUDGED["pareto_halving"]
    ) -> None:
        super().__init__()
        self._make = make
        self._judged = judged
        self._halving: Halving | None = None
        self._before = list(recorded_results(records))  # what came before the halving was made
        self._reasons: dict[str, str] = {}

    def reason(self, trial_id: str) -> str | None:
        """Returns why a trial of the study was stopped, for its record; None where it was not."""
        return self._reasons.get(trial_id)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        """Returns STOP or CONTINUE; Tune asks after each result but the last."""
        if self._make is None or result.get("perplexity") is None or not result.get("total_steps"):
            return str(self.CONTINUE)
        if self._halving is None:
            self._halving = self._make(int(result["total_steps"]))
            replay(self._halving, self._before)
        trial_id, step = trial.config["trial_id"], int(result["step"])
        verdicts = replay(self._halving, self._results(trial, result))
        if verdicts[trial_id] == "continue":
            return str(self.CONTINUE)
        self._reasons[trial_id] = f"{self._judged} at step {step} of {result['total_steps']}"
        return str(self.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> None:
        """Keeps the whole curve of a trial that came to its end, for others to be judged against."""
        if "outcome" not in result:
            return
        told = list(self._outcome_results(trial, json.loads(result["outcome"])))
        if self._halving is None:
            self._before += told
        else:
            replay(self._halving, told)

    def debug_string(self) -> str:
        """Returns a line for Tune's own status."""
        return f"Early stopping: {len(self._reasons)} trials stopped."

    def _results(self, trial: Any, result: Mapping[str, Any]) -> Iterator[Result]:
        """What a result tells the halving, the newest last."""
        if result.get("so_far"):
            yield from self._outcome_results(trial, json.loads(result["so_far"]))
        config, memory = TrialConfig.from_dict(trial.config["config"]), result.get("peak_memory_bytes")
        step, loss = int(result["step"]), float(result["perplexity"])
        yield Result(trial.config["trial_id"], step, loss, memory, configuration_of(config))

    def _outcome_results(self, trial: Any, outcome: Mapping[str, Any]) -> Iterator[Result]:
        config = TrialConfig.from_dict(trial.config["config"])
        yield from _curve_results(trial.config["trial_id"], config, outcome["curve"], outcome["measurements"])


def early_stopping(settings: EarlyStoppingSettings, records: Iterable[TrialRecord]) -> EarlyStopping:
    """Returns the scheduler that a study asks for; with the algorithm `none` it stops nothing."""
    if settings.algorithm == "none":
        return EarlyStopping(None)
    return EarlyStopping(partial(halving_of, settings), records, JUDGED[settings.algorithm])


def halving_of(settings: EarlyStoppingSettings, total_steps: int) -> Halving:
    """Returns the halving that a study asks for, over trainings of so many optimizer steps."""
    shared = (total_steps, settings.rungs, settings.keep_fraction, settings.grace_steps)
    if settings.algorithm == "asha":
        return PerplexityHalving(*shared)
    return ParetoHalving(*shared, settings.strata, settings.stratum_fraction)


def recorded_results(records: Iterable[TrialRecord]) -> Iterator[Result]:
    """Yields the results of trials that have ended, from their records, for `replay`."""
    for record in records:
        yield from _curve_results(record.trial_id, record.config, record.curve, record.measurements)


def configuration_of(config: TrialConfig) -> str:
    """Returns what the seeds of a configuration share, as text."""
    values = config.to_dict()
    del values["seed"]
    return json.dumps(values, sort_keys=True)


def _curve_results(
    trial_id: str, config: TrialConfig, curve: Iterable[Mapping[str, Any]], measurements: Mapping[str, Any]
) -> Iterator[Result]:
    memory = measurements.get("peak_memory_bytes")
    for point in curve:
        if point.get("perplexity") is not None:
            yield Result(trial_id, int(point["step"]), float(point["perplexity"]), memory, configuration_of(config))
