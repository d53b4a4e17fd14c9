"""Plans which trials a search consists of, by name and precision, before any of them is asked for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from search_spaces.trial_config import TrialConfig
from study.search.candidates import all_configurations
from study.search.search_task import SearchTask


@dataclass(frozen=True)
class PlannedTrial:
    """A trial that the search consists of; of a grid and of what is tried first, the configuration is known."""

    number: int
    trial_id: str
    config: TrialConfig | None = None


def planned_trials(task: SearchTask) -> dict[str, list[PlannedTrial]]:
    """The trials of each precision, in the order in which they are asked for.

    A search's trials are dealt out evenly over the precisions, and begin with what is to be tried first. They are named
    precision after precision, those of a grid in the grid's order, also where it is shuffled.
    """
    grid = task.settings.algorithm == "grid"
    trials: list[tuple[str, TrialConfig | None]]
    trials = [(one.precision, one) for one in task.space.grid(task.seeds)] if grid else _dealt_out(task)
    digits = max(3, len(str(len(trials) - 1)))
    planned: dict[str, list[PlannedTrial]] = {precision: [] for precision in task.space.precisions()}
    for number, (precision, config) in enumerate(trials):
        planned[precision].append(PlannedTrial(number, f"t{number:0{digits}}", config))
    if grid and task.shuffled:
        for precision, own in planned.items():
            random.Random(f"{task.settings.seed}:{precision}").shuffle(own)
    return planned


def _dealt_out(task: SearchTask) -> list[tuple[str, TrialConfig | None]]:
    """A search's trials, precision after precision: those to be tried first, then those that are still open."""
    precisions = task.space.precisions()
    listed = [all_configurations(task.space.with_precision(precision), task.seeds[0]) for precision in precisions]
    first = {one: [config for config in task.settings.try_first if config.precision == one] for one in precisions}
    room = [None if every is None else len(every) for every in listed]
    dealt = shares(task.settings.trials, room, [len(first[precision]) for precision in precisions])
    trials: list[tuple[str, TrialConfig | None]] = []
    for precision, share in zip(precisions, dealt, strict=True):
        open_: list[TrialConfig | None] = [None] * (share - len(first[precision]))
        trials += [(precision, config) for config in [*first[precision], *open_]]
    return trials


def shares(trials: int, room: Sequence[int | None], least: Sequence[int] = ()) -> list[int]:
    """Deals trials out evenly: none gets more than its room (None: no bound), and the first get what is over.

    `least` have been dealt already, and are among the trials.
    """
    dealt = list(least) or [0] * len(room)
    for _ in range(trials - sum(dealt)):
        open_ = [place for place, most in enumerate(room) if most is None or dealt[place] < most]
        if not open_:
            break
        dealt[min(open_, key=dealt.__getitem__)] += 1
    return dealt
