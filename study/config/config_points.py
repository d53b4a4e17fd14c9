"""Configurations that a study file names one by one: `search.try_first`. (no torch, no ray)"""

from __future__ import annotations

from typing import Any

from search_spaces.parameters import SearchSpace, SpaceError
from search_spaces.points import parse_point
from search_spaces.trial_config import TrialConfig
from study.config.reader import Section
from study.config.rules import list_of
from study.errors import Absent

MOST_POINTS = 10_000  # `confirm` names its configurations so, once for each seed
EXAMPLE = "[{precision: nf4, rank: 16, target_modules: q_v, learning_rate: 2.0e-4}]"


def try_first(section: Section, space: SearchSpace | None, seed: int) -> tuple[TrialConfig, ...]:
    """The configurations under `try_first`, distinct; those that are right, where some are not."""
    points = section.get("try_first", list_of(0, MOST_POINTS, "configurations", EXAMPLE), [])
    found: list[TrialConfig] = []
    for place, point in enumerate(points if space is not None else ()):
        key = f"try_first.{place}"
        try:
            config = parse_point(space, point, seed) if space is not None else None
        except SpaceError as error:
            for fault in error.faults:
                value = Absent.MISSING if fault.missing else fault.value
                section.faults.add(section.path(f"{key}.{fault.key}".rstrip(".")), value, fault.rule, fault.remedy)
            continue
        if config in found:
            section.repeated(key, point)
        elif config is not None:
            found.append(config)
    return tuple(found)


def point_values(config: TrialConfig) -> dict[str, Any]:
    """A configuration as `try_first` has it, its seed included."""
    return config.to_dict()
