"""Reads the sections that describe the search: search, seeds, early stopping, confirm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from search_spaces.parameters import SearchSpace, SpaceError
from search_spaces.points import parse_point
from search_spaces.trial_config import TrialConfig
from study.config.paths import file_path
from study.config.reader import REQUIRED, Faults, Section
from study.config.rules import list_of, nullable, number, one_of, text, whole
from study.config.trial_sections import HIGHEST_SEED, SEED
from study.errors import shown
from trainables.settings import RungSettings

SearchAlgorithm = Literal["grid", "random", "tpe", "nsga2", "gp"]
STOPPING_ALGORITHMS = ("none", "pareto_halving", "asha")
MAX_TRIALS = 10_000
MAX_SEEDS = 100
MAX_FIRST = 10_000  # configurations to try first: `confirm` lists its own so, once for each seed
MAX_WARM_STARTS = 100
FIRST_EXAMPLE = "[{precision: nf4, rank: 16, target_modules: q_v, learning_rate: 2.0e-4}]"

# Chosen on recorded curves (tests/benchmarks/results/search/replay_stories260k.json): of the settings that spend at
# most a fifth of full training, those that keep most of the hypervolume.
DEFAULT_RUNGS = (1 / 16, 5 / 16)  # of the training budget
DEFAULT_KEEP_FRACTION = 0.1
DEFAULT_STRATA = 3
DEFAULT_STRATUM_FRACTION = 0.05

EARLY_STOPPING = {
    "algorithm": one_of(STOPPING_ALGORITHMS),
    "keep_fraction": number(0, 1, above=True),
    "grace_steps": whole(0, 10**7),
    "strata": whole(1, 100),
    "stratum_fraction": number(0, 1, above=True),
}


@dataclass(frozen=True)
class SearchSettings:
    """How configurations are proposed; `trials` counts configurations, each of which a grid tries with every seed."""

    algorithm: SearchAlgorithm
    trials: int
    seed: int
    try_first: tuple[TrialConfig, ...] = ()  # counted among the trials
    warm_start: tuple[str, ...] = ()  # directories of earlier studies

    def to_mapping(self) -> dict[str, Any]:
        """The section as a study file has it."""
        first = [config.to_dict() for config in self.try_first]  # their seeds included
        plain = {"algorithm": self.algorithm, "trials": self.trials, "seed": self.seed}
        return {**plain, "try_first": first, "warm_start": list(self.warm_start)}


@dataclass(frozen=True)
class EarlyStoppingSettings:
    """How trials are stopped early; `study.search.early_stopping` says what the values do."""

    algorithm: str = "none"
    rungs: tuple[float, ...] = DEFAULT_RUNGS  # of the training budget
    keep_fraction: float = DEFAULT_KEEP_FRACTION
    grace_steps: int = 0  # before which nothing is stopped
    strata: int = DEFAULT_STRATA  # by memory, of pareto_halving
    stratum_fraction: float = DEFAULT_STRATUM_FRACTION

    def for_trials(self) -> RungSettings:
        """The rungs as trials need them; none where nothing is stopped."""
        return RungSettings() if self.algorithm == "none" else RungSettings(self.rungs, self.grace_steps)


@dataclass(frozen=True)
class ConfirmSettings:
    """The seeds with which `confirm` trains the front again."""

    seeds: tuple[int, ...] = (101, 102, 103)


def search(section: Section, space: SearchSpace | None, seeds: Sequence[int], folder: Path) -> SearchSettings:
    """How configurations are proposed; a grid has as many trials as configurations."""
    algorithm = section.get("algorithm", one_of(get_args(SearchAlgorithm)), "grid")
    trials = section.get("trials", nullable(whole(1, MAX_TRIALS, "24")), None)
    seed = section.get("seed", SEED, 0)
    first = _try_first(section, space, seeds[0] if seeds else 0)
    earlier = section.items(
        "warm_start", list_of(0, MAX_WARM_STARTS, "study directories", "[runs/earlier]"), text(), ()
    )
    section.end()
    if not section.faults.clean("search.algorithm", "search.trials"):
        return SearchSettings(algorithm, 0, seed)
    _start_faults(section, algorithm, trials, len(first))
    if algorithm != "grid" and trials is None:
        section.missing("trials", "24")
    elif algorithm == "grid" and space is not None:
        trials = _grid_size(section.faults, space, trials, len(seeds))
    return SearchSettings(algorithm, trials or 0, seed, first, tuple(file_path(one, folder) for one in earlier))


def _try_first(section: Section, space: SearchSpace | None, seed: int) -> tuple[TrialConfig, ...]:
    """The configurations under `try_first`: those without faults, distinct."""
    points = section.get("try_first", list_of(0, MAX_FIRST, "configurations", FIRST_EXAMPLE), [])
    found: list[TrialConfig] = []
    for place, point in enumerate(points if space is not None else ()):
        key = f"try_first.{place}"
        try:
            config = parse_point(space, point, seed) if space is not None else None
        except SpaceError as error:
            section.faults.add_space(section.path(key), error)
            continue
        if config in found:
            section.repeated(key, point)
        elif config is not None:
            found.append(config)
    return tuple(found)


def _start_faults(section: Section, algorithm: str, trials: int | None, points: int) -> None:
    """Notes what a search begins with where a grid has no use for it, and fewer trials than are to be tried first."""
    for name in ("try_first", "warm_start"):
        value = section.raw(name)
        if value is not REQUIRED and value and algorithm == "grid":
            remedy = "Leave it out, or search the space: `algorithm: tpe` with a number of `trials`."
            section.faults.add(section.path(name), value, "is for a search; a grid runs whole anyway", remedy)
    if trials is not None and points > trials:
        rule = f"must be at least {points}, the configurations to try first"
        section.faults.add(section.path("trials"), trials, rule, "Raise it, or try fewer first.")


def _grid_size(faults: Faults, space: SearchSpace, trials: int | None, seed_count: int) -> int | None:
    combinations = space.combinations() * seed_count
    if combinations > MAX_TRIALS:
        rule = f"must have at most {MAX_TRIALS:,} trials; the space's combinations times the seeds are {combinations:,}"
        remedy = "Leave values out, or search it: `algorithm: tpe` with a number of `trials`."
        faults.add("search.algorithm", "grid", rule, remedy)
        return None
    configurations = len(space.grid([0]))
    if trials is not None and trials < configurations:
        rule = f"must be at least {configurations}, the space's configurations: a grid runs whole"
        faults.add("search.trials", trials, rule, "Leave it out, or let `algorithm: random` take so many.")
    return configurations


def seeds(study: Section) -> tuple[int, ...]:
    """The trials' seeds, distinct."""
    return study.items("seeds", list_of(1, MAX_SEEDS, "whole numbers", "[0]"), whole(0, HIGHEST_SEED, "[0]"), (0,))


def early_stopping(section: Section) -> EarlyStoppingSettings:
    """How trials are stopped early."""
    defaults = EarlyStoppingSettings()
    example = shown(list(DEFAULT_RUNGS))
    part = number(0, 1, above=True, below=True, example=example)
    rungs = section.items("rungs", list_of(1, 20, "numbers", example), part, DEFAULT_RUNGS)
    if list(rungs) != sorted(rungs):
        rule = "must go upward: they are parts of the training budget, one after another"
        section.faults.add(section.path("rungs"), list(rungs), rule, f"Write `rungs: {shown(sorted(rungs))}`.")
    values = {name: section.get(name, rule, getattr(defaults, name)) for name, rule in EARLY_STOPPING.items()}
    section.end()
    return EarlyStoppingSettings(rungs=rungs, **values)


def confirm(section: Section, seeds: Sequence[int], algorithm: str) -> ConfirmSettings:
    """The seeds with which the front is trained again: others than those that the study trains with.

    A search uses only the first of the study's seeds, so its others are the default.
    """
    trained = tuple(seeds) if algorithm == "grid" else tuple(seeds[:1])
    default = tuple(seed for seed in seeds if seed not in trained) or ConfirmSettings.seeds
    example = shown(list(default))
    rule = whole(0, HIGHEST_SEED, example)
    new = section.items("seeds", list_of(1, MAX_SEEDS, "whole numbers", example), rule, default)
    section.end()
    for place, seed in enumerate(new):
        if seed in trained:
            remedy = "Give seeds that the study has not trained with, so that they say something new."
            section.faults.add(section.path(f"seeds.{place}"), seed, "must differ from the study's seeds", remedy)
    return ConfirmSettings(new)
