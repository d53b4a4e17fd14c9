"""The losses of all trials by optimizer step, from which early stopping takes the field of a rung."""

from __future__ import annotations

import math
from collections.abc import Hashable

from study.search.front_ranking import Contender


class LearningCurves:
    """Every trial's losses by optimizer step, its configuration, and the memory known of that.

    A result that is repeated after a restart replaces the earlier one of its step.
    """

    def __init__(self) -> None:
        self._losses: dict[str, dict[int, float]] = {}
        self._memory: dict[Hashable, float] = {}
        self._configuration: dict[str, Hashable] = {}

    def add(self, trial: str, step: int, loss: float, memory: float | None, configuration: Hashable) -> Hashable:
        """Adds one result; returns the trial's configuration. A loss that is not a number counts as infinite."""
        key = trial if configuration is None else configuration
        self._configuration[trial] = key
        if memory is not None and math.isfinite(memory):
            self._memory[key] = memory
        self._losses.setdefault(trial, {})[step] = math.inf if math.isnan(loss) else loss
        return key

    def between(self, rung: int, above: float) -> dict[str, float]:
        """The first loss of each trial that has one from step `rung` on and before step `above`."""
        inside = ((trial, [step for step in losses if rung <= step < above]) for trial, losses in self._losses.items())
        return {trial: self._losses[trial][min(steps)] for trial, steps in inside if steps}

    def field(self, rung: int, above: float) -> list[Contender]:
        """The configurations at a rung, in a fixed order: each with the mean loss of its seeds and its known memory.

        Left out are seeds whose loss is not finite, and configurations whose memory is not known.
        """
        seeds: dict[Hashable, list[float]] = {}
        for trial, loss in self.between(rung, above).items():
            if math.isfinite(loss):
                seeds.setdefault(self._configuration[trial], []).append(loss)
        known = [(key, losses) for key, losses in seeds.items() if key in self._memory]
        field = [Contender(key, math.fsum(losses) / len(losses), self._memory[key]) for key, losses in known]
        return sorted(field, key=lambda one: (one.memory, one.loss, str(one.key)))
