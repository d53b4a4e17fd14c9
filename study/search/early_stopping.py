"""Early stopping's rules: which trials continue, judged as their results arrive.

Successive halving spends little training on bad configurations and much on good ones (Jamieson and Talwalkar 2016,
arXiv 1502.07943); asynchronously, so that no trial waits for others (ASHA, Li et al. 2020, arXiv 1810.05934). Here a
configuration is good if it is near the front of (loss so far, memory): the least losses alone would leave only the most
expensive configurations. Losses, memory in bytes and ranks are minimized.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from study.config.search_sections import DEFAULT_KEEP_FRACTION, DEFAULT_RUNGS, DEFAULT_STRATA, DEFAULT_STRATUM_FRACTION
from study.search.front_ranking import Contender, by_loss, by_rank, extremes, memory_strata
from study.search.learning_curves import LearningCurves
from trainables.settings import RungSettings

Verdict = Literal["continue", "stop"]


class Halving(Protocol):
    """Decides, result by result, whether a trial continues."""

    def on_result(
        self, trial: str, step: int, loss: float, memory: float | None, configuration: Hashable = None
    ) -> Verdict:
        """Adds one result (optimizer steps, loss, bytes); returns whether its trial continues."""


@dataclass(frozen=True)
class Result:
    """One trial's quality after `step` optimizer steps; `replay` rebuilds a halving's state from these in order."""

    trial: str
    step: int
    loss: float
    memory: float | None
    configuration: Hashable = None  # equal for the seeds of one configuration; None: the trial is alone


def replay(halving: Halving, results: Iterable[Result]) -> dict[str, Verdict]:
    """Gives the results to a halving in their order, as after a restart; returns each trial's last verdict."""
    verdicts: dict[str, Verdict] = {}
    for one in results:
        verdicts[one.trial] = halving.on_result(one.trial, one.step, one.loss, one.memory, one.configuration)
    return verdicts


class ParetoHalving:
    """Asynchronous successive halving toward the front of (loss, memory), both minimized.

    The field of a rung is every configuration that has reached it, with the loss it had there, also those that were
    stopped since. A trial continues as long as its configuration is among the `survivors` of every rung that it has
    passed, or is the cheapest or has the least loss at the highest of them.

    With each result all rungs that the trial has passed are judged again: a field fills after its first trials have
    passed, and those would otherwise continue for want of rivals. So no trial waits, and the order in which trials
    arrive matters little. Seeds of one configuration are judged together, by the mean of their losses. A trial whose
    memory is not known continues. A trial whose loss is not finite stops at its first rung.
    """

    def __init__(
        self,
        total_steps: int,
        rungs: Sequence[float] = DEFAULT_RUNGS,
        keep_fraction: float = DEFAULT_KEEP_FRACTION,
        grace_steps: int = 0,
        strata: int = DEFAULT_STRATA,
        stratum_fraction: float = DEFAULT_STRATUM_FRACTION,
    ) -> None:
        """`rungs` are fractions of `total_steps`; before `grace_steps` nothing is stopped. Raises ValueError."""
        check_fraction("keep_fraction", keep_fraction)
        check_fraction("stratum_fraction", stratum_fraction)
        check_count("strata", strata)
        self.rungs = rung_steps(total_steps, rungs, grace_steps)
        self.keep_fraction = keep_fraction
        self.strata = strata
        self.stratum_fraction = stratum_fraction
        self._curves = LearningCurves()

    def on_result(
        self, trial: str, step: int, loss: float, memory: float | None, configuration: Hashable = None
    ) -> Verdict:
        """Adds one result (optimizer steps, loss, bytes); returns whether its trial continues, without waiting."""
        key = self._curves.add(trial, step, loss, memory, configuration)
        passed = [rung for rung in self.rungs if rung <= step]
        if passed and not math.isfinite(loss):
            return "stop"
        fields = self._fields(key, passed)
        if not fields or key in extremes(fields[-1]):
            return "continue"
        return "continue" if all(key in self.survivors(field) for field in fields) else "stop"

    def _fields(self, key: Hashable, passed: Sequence[int]) -> list[list[Contender]]:
        """The fields of the rungs passed that hold a configuration; none where its memory is not known."""
        ends = [*self.rungs, math.inf][1:]
        fields = [
            self._curves.field(rung, above) for rung, above in zip(self.rungs, ends, strict=True) if rung in passed
        ]
        return [field for field in fields if any(one.key == key for one in field)]

    def survivors(self, field: Sequence[Contender]) -> set[Hashable]:
        """The truncation rule: the configurations of a rung's field that continue.

        - the front of the field: no other configuration has both less loss and less memory;
        - the best `keep_fraction` of the field by non-dominated rank, ties broken by exclusive hypervolume;
        - the cheapest, and the one with the least loss;
        - the best `stratum_fraction` (at least one) of each memory stratum by loss. The strata are `strata` groups of
          equal size by memory, so that cheap configurations, which learn more slowly, are judged among their like.
        """
        ranked = by_rank(field)
        kept = [one for one, rank in ranked if rank == 0]
        kept += [one for one, _ in ranked[: math.ceil(self.keep_fraction * len(field))]]
        for stratum in memory_strata(field, self.strata):
            kept += sorted(stratum, key=by_loss)[: math.ceil(self.stratum_fraction * len(stratum))]
        return {one.key for one in kept} | extremes(field)


class PerplexityHalving:
    """Plain asynchronous successive halving on the loss alone (ASHA as Tune runs it), to compare with.

    A trial is judged once a rung, with its first result there: it continues if its loss is among the best
    `keep_fraction` of the losses with which trials have reached that rung. Memory and configuration have no effect.
    """

    def __init__(
        self,
        total_steps: int,
        rungs: Sequence[float] = DEFAULT_RUNGS,
        keep_fraction: float = DEFAULT_KEEP_FRACTION,
        grace_steps: int = 0,
    ) -> None:
        """`rungs` are fractions of `total_steps`; before `grace_steps` nothing is stopped. Raises ValueError."""
        check_fraction("keep_fraction", keep_fraction)
        self.rungs = rung_steps(total_steps, rungs, grace_steps)
        self.keep_fraction = keep_fraction
        self._losses: Mapping[int, dict[str, float]] = {rung: {} for rung in self.rungs}
        self._verdicts: dict[tuple[int, str], Verdict] = {}

    def on_result(
        self, trial: str, step: int, loss: float, memory: float | None, configuration: Hashable = None
    ) -> Verdict:
        """Adds one result (optimizer steps, loss, bytes); returns whether its trial continues, without waiting."""
        rung = highest_rung(self.rungs, step)
        if rung is None:
            return "continue"
        if not math.isfinite(loss):
            return "stop"
        if (rung, trial) not in self._verdicts:
            self._verdicts[rung, trial] = self._judge(rung, trial, loss)
        return self._verdicts[rung, trial]

    def _judge(self, rung: int, trial: str, loss: float) -> Verdict:
        field = self._losses[rung]
        field[trial] = loss
        kept = math.ceil(self.keep_fraction * len(field))
        return "continue" if loss <= sorted(field.values())[kept - 1] else "stop"


def rung_steps(total_steps: int, rungs: Sequence[float], grace_steps: int) -> tuple[int, ...]:
    """The rungs as optimizer steps, ascending, those before `grace_steps` moved there. Raises ValueError."""
    check_count("total_steps", total_steps)
    if not rungs or any(not 0 < rung < 1 for rung in rungs) or list(rungs) != sorted(set(rungs)):
        rule = "rungs must be fractions of the training budget above 0 and under 1, each greater than the one before"
        raise ValueError(f"{rule}; they are {list(rungs)!r}. Give for example {[0.125, 0.25, 0.5]}.")
    if grace_steps < 0:
        raise ValueError(f"grace_steps must be at least 0; it is {grace_steps!r}. Give 0 for none.")
    return RungSettings(tuple(rungs), grace_steps).steps(total_steps)


def highest_rung(rungs: Sequence[int], step: int) -> int | None:
    """The highest rung that a trial has passed after `step` steps; None before the first."""
    return max((rung for rung in rungs if rung <= step), default=None)


def check_fraction(name: str, value: float) -> None:
    """Raises ValueError where the value is not above 0 and at most 1."""
    if not 0 < value <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1; it is {value!r}. Give for example 0.25.")


def check_count(name: str, value: int) -> None:
    """Raises ValueError where the value is under 1."""
    if value < 1:
        raise ValueError(f"{name} must be at least 1; it is {value!r}. Give a whole number from 1 on.")
