"""What a study's search consists of: space, settings, seeds, objectives, and what is known of memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search_spaces.parameters import SearchSpace
from study.config.search_sections import SearchSettings
from study.config.study_config import StudyConfig
from study.records.objectives import Objective
from study.search.known_cost import MemoryOf, known_cost_of

if TYPE_CHECKING:
    from study.search.algorithms import Sampling


@dataclass(frozen=True)
class SearchTask:
    """Everything that decides which configurations a search asks for.

    A grid asks for its configurations once for each of `seeds`, and if `shuffled` in an order that the search's seed
    draws, so that its first trials stand for all. Other algorithms use the first of `seeds`. `memory_of` predicts a
    configuration's peak memory in bytes for an algorithm that makes use of it; a configuration that would reach
    `memory_limit_bytes` is then proposed only when nothing else is left. Raises ValueError where `settings` do not say
    how many configurations to try.
    """

    name: str  # of the study
    space: SearchSpace
    settings: SearchSettings
    seeds: tuple[int, ...]
    objectives: tuple[Objective, ...]
    memory_of: MemoryOf | None = None
    memory_limit_bytes: int | None = None
    shuffled: bool = False

    def __post_init__(self) -> None:
        algorithm, trials = self.settings.algorithm, self.settings.trials
        if algorithm != "grid" and not trials:
            raise ValueError(f"trials must say how many configurations {algorithm} tries; it is {trials}")

    @classmethod
    def of(cls, config: StudyConfig, memory_of: MemoryOf | None = None) -> SearchTask:
        """The search that a study file asks for; `memory_of` predicts a configuration's peak memory in bytes."""
        return cls(
            config.name,
            config.space,
            config.search,
            config.seeds,
            config.objectives,
            memory_of if config.search.algorithm == "gp" else None,
            config.trial.hardware.memory_limit_bytes,
            # The first trials are judged by few others: if all had the least learning rate, too many would continue.
            shuffled=config.early_stopping.algorithm != "none",
        )

    def sampling(self) -> Sampling:
        """The search's algorithm."""
        from study.search.algorithms import Sampling  # not above: a plan needs no Optuna

        directions = tuple(objective.direction for objective in self.objectives)
        limit = self.memory_limit_bytes
        known = known_cost_of(self.objectives, self.memory_of, limit) if self.memory_of else None
        return Sampling(self.space, self.settings, self.seeds[0], directions, known)

    def to_mapping(self) -> dict[str, Any]:
        """What a database notes of the search that it was begun with, JSON-ready; see `SearchDatabase`."""
        settings = self.settings
        mapping: dict[str, Any] = {
            "space": self.space.to_mapping(),
            "algorithm": settings.algorithm,
            "trials": settings.trials,
            "seed": settings.seed,
            "seeds": [*self.seeds],
        }
        if settings.try_first:
            mapping["try_first"] = [config.to_dict() for config in settings.try_first]
        return mapping
