"""Which trials a search consists of, by name and precision, before any of them is asked for. (no torch, no ray)"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from search_spaces.trial_config import TrialConfig
from study.search.sampling import Sampling, all_configurations, shares


@dataclass(frozen=True)
class PlannedTrial:
    """A trial that the search consists of; a grid knows its configuration from the start."""

    number: int
    trial_id: str
    config: TrialConfig | None = None


def planned_trials(
    sampling: Sampling, seeds: Sequence[int], try_first: Sequence[TrialConfig], shuffled: bool = False
) -> dict[str, list[PlannedTrial]]:
    """The trials of each precision, in the order they are asked for; named in the order of the grid, or precision
    after precision.

    A search's trials are dealt out evenly over the precisions, and begin with what is to be tried first. With
    `shuffled` a grid's are asked for in an order that the search's seed draws.
    """
    grid = sampling.algorithm == "grid"
    trials: list[tuple[str, TrialConfig | None]]
    trials = [(one.precision, one) for one in sampling.space.grid(seeds)] if grid else _dealt_out(sampling, try_first)
    digits = max(3, len(str(len(trials) - 1)))
    planned: dict[str, list[PlannedTrial]] = {precision: [] for precision in sampling.space.precisions()}
    for number, (precision, config) in enumerate(trials):
        planned[precision].append(PlannedTrial(number, f"t{number:0{digits}}", config))
    if grid and shuffled:
        for precision, own in planned.items():
            random.Random(f"{sampling.seed}:{precision}").shuffle(own)
    return planned


def _dealt_out(sampling: Sampling, try_first: Sequence[TrialConfig]) -> list[tuple[str, TrialConfig | None]]:
    """A search's trials, precision after precision: those to be tried first, then those that are still open."""
    precisions = sampling.space.precisions()
    spaces = [sampling.space.with_precision(precision) for precision in precisions]
    listed = [all_configurations(space, sampling.trial_seed) for space in spaces]
    first = {one: [config for config in try_first if config.precision == one] for one in precisions}
    room = [None if every is None else len(every) for every in listed]
    dealt = shares(sampling.trials, room, [len(first[precision]) for precision in precisions])
    trials: list[tuple[str, TrialConfig | None]] = []
    for precision, share in zip(precisions, dealt, strict=True):
        open_: list[TrialConfig | None] = [None] * (share - len(first[precision]))
        trials += [(precision, config) for config in [*first[precision], *open_]]
    return trials
