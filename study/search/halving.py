"""Which trials are worth training on, judged as their results arrive (pure: no ray, no torch).

Successive halving spends little on what is bad and much on what is good (Jamieson and Talwalkar 2016, arXiv
1502.07943); asynchronously, so that no trial waits for others (ASHA, Li et al. 2020, arXiv 1810.05934). Here "good" is
being near the front of (loss so far, memory): the best losses alone would leave only the most expensive configurations.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from study.config.search_sections import DEFAULT_KEEP_FRACTION, DEFAULT_RUNGS, DEFAULT_STRATA, DEFAULT_STRATUM_FRACTION
from study.search.front_ranking import Candidate, best_candidates, extremes
from trainables.settings import RungSettings

Verdict = Literal["continue", "stop"]


class Halving(Protocol):
    """What decides, result by result, whether a trial goes on."""

    def on_result(
        self, trial: str, step: int, loss: float, memory: float | None, configuration: Hashable = None
    ) -> Verdict:
        """Takes one result in and says whether its trial goes on."""


@dataclass(frozen=True)
class Result:
    """One trial's quality after `step` optimizer steps; `replay` rebuilds a halving's state from these in order."""

    trial: str
    step: int
    loss: float
    memory: float | None
    configuration: Hashable = None  # equal for the seeds of one configuration; None: the trial is alone


def replay(halving: Halving, results: Iterable[Result]) -> dict[str, Verdict]:
    """Gives the results to a halving in their order, as after a restart; answers each trial's last verdict."""
    verdicts: dict[str, Verdict] = {}
    for one in results:
        verdicts[one.trial] = halving.on_result(one.trial, one.step, one.loss, one.memory, one.configuration)
    return verdicts


class Curves:
    """Every trial's losses by step, and what each trial is: the memory known of it, and its configuration.

    A result that comes again (after a restart) replaces the earlier one of its step.
    """

    def __init__(self) -> None:
        self._losses: dict[str, dict[int, float]] = {}
        self._memory: dict[Hashable, float] = {}
        self._configuration: dict[str, Hashable] = {}

    def add(self, trial: str, step: int, loss: float, memory: float | None, configuration: Hashable) -> Hashable:
        """Takes one result in; answers the trial's configuration. A loss that is not a number counts as infinite."""
        key = trial if configuration is None else configuration
        self._configuration[trial] = key
        if memory is not None and math.isfinite(memory):
            self._memory[key] = memory
        self._losses.setdefault(trial, {})[step] = math.inf if math.isnan(loss) else loss
        return key

    def between(self, rung: int, above: float) -> dict[str, float]:
        """Each trial's first loss from a rung on and before the one above; a trial without any is not in the answer."""
        inside = ((trial, [step for step in losses if rung <= step < above]) for trial, losses in self._losses.items())
        return {trial: self._losses[trial][min(steps)] for trial, steps in inside if steps}

    def field(self, rung: int, above: float) -> list[Candidate]:
        """The configurations at a rung, in a fixed order: each with the mean loss of its seeds and its known memory.

        Seeds whose loss is not finite count for nothing; a configuration whose memory is not known is not among them.
        """
        seeds: dict[Hashable, list[float]] = {}
        for trial, loss in self.between(rung, above).items():
            if math.isfinite(loss):
                seeds.setdefault(self._configuration[trial], []).append(loss)
        known = [(key, losses) for key, losses in seeds.items() if key in self._memory]
        field = [Candidate(key, math.fsum(losses) / len(losses), self._memory[key]) for key, losses in known]
        return sorted(field, key=lambda one: (one.memory, one.loss, str(one.key)))


class ParetoHalving:
    """Asynchronous successive halving toward the front of (loss, memory), both minimized.

    At each rung that it has passed, a trial stands against every configuration that has come there, those stopped since
    included, with the loss that each had there. It goes on as long as its configuration is, at all of these rungs, one
    of

    - the front at that rung: nothing there has both less loss and less memory;
    - the best `keep_fraction` of the field by non-dominated rank, ties broken by exclusive hypervolume;
    - the cheapest, or the one with the least loss;
    - the best `stratum_fraction` (one at least) of its memory stratum by loss. Strata are `strata` groups of equal size
      by memory, so cheap configurations, which learn more slowly, are judged among their like.

    And whatever it was before, the cheapest and the least loss at the highest rung that it has passed are not stopped.

    Rungs that it passed early are looked at again with each result: a field fills after its first trials have left, and
    those who came first would else go on for want of rivals. So no trial waits, and yet none owes much to its place in
    the order. Seeds of one configuration are judged together, by the mean of the losses that they have there. A trial
    whose memory is not known goes on. One whose loss is not finite stops at its first rung.
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
        self._curves = Curves()

    def on_result(
        self, trial: str, step: int, loss: float, memory: float | None, configuration: Hashable = None
    ) -> Verdict:
        """Takes one result in (optimizer steps, loss, bytes) and says whether its trial goes on; never waits."""
        key = self._curves.add(trial, step, loss, memory, configuration)
        passed = [rung for rung in self.rungs if rung <= step]
        if passed and not math.isfinite(loss):
            return "stop"
        fields = self._fields(key, passed)
        if not fields or key in extremes(fields[-1]):
            return "continue"
        return "continue" if all(key in self.survivors(field) for field in fields) else "stop"

    def _fields(self, key: Hashable, passed: Sequence[int]) -> list[list[Candidate]]:
        """The fields that a configuration stands in, of the rungs passed; none where its memory is not known."""
        ends = [*self.rungs, math.inf][1:]
        fields = [
            self._curves.field(rung, above) for rung, above in zip(self.rungs, ends, strict=True) if rung in passed
        ]
        return [field for field in fields if any(one.key == key for one in field)]

    def survivors(self, field: Sequence[Candidate]) -> set[Hashable]:
        """The configurations of a rung's field that go on."""
        return best_candidates(field, self.keep_fraction, self.strata, self.stratum_fraction)


class PerplexityHalving:
    """Plain asynchronous successive halving on the loss alone (ASHA as Tune runs it), to compare with.

    A trial is judged when it comes to a rung, and only then, however often it is told there: it goes on if its loss
    is among the best `keep_fraction` of those that have come there. Memory and configuration are taken, and have no
    effect.
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
        """Takes one result in and says whether its trial goes on; never waits."""
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
    """The rungs as optimizer steps, upward; those under the grace are moved to its end. Raises ValueError."""
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
