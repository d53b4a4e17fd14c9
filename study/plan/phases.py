"""Which of a study's trials run together, by what the memory model says of them. (no torch, no ray)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search_spaces.footprint import Footprint
from search_spaces.trial_config import TrialConfig
from study.config.study_config import StudyConfig
from study.errors import PlanError
from study.plan.fitting import Fit
from study.plan.forecast import Forecast, likely_configurations
from study.plan.shares import Demand, Node, Phase, plan_demands, plan_phases
from study.plan.study_plan import demand_of, groups_of
from trainables.settings import HardwareSettings


@dataclass(frozen=True)
class StudyPhase:
    """Trials that run together; of a grid, those of `footprints`, else (None) all of the phase's precision."""

    phase: Phase
    footprints: frozenset[Footprint] | None = None

    @property
    def cards_at_most(self) -> int | None:
        """How many cards a trial's base model may have: a grid's fit as they are, a search's take what is there."""
        return None if self.footprints is not None else self.phase.cards

    def holds(self, config: TrialConfig) -> bool:
        """Whether the configuration runs in this phase."""
        if config.precision != self.phase.precision:
            return False
        return self.footprints is None or Footprint.of(config) in self.footprints


def study_phases(
    config: StudyConfig,
    left: Mapping[str, int],
    ended: Sequence[TrialConfig],
    forecast: Forecast | None,
    nodes: tuple[Node, ...],
    use_gpu: bool,
) -> tuple[StudyPhase, ...]:
    """The phases of what has not ended, `left` trials of each precision; by memory where there is a forecast.

    Raises PlanError for what the machines cannot run.
    """
    hardware = config.trial.hardware
    if forecast is None:
        return tuple(map(StudyPhase, plan_phases(left, nodes, hardware, use_gpu)))
    if config.search.algorithm == "grid":
        over = frozenset(ended)
        configs = [one for one in likely_configurations(config, left) if one not in over]
        return _grid_phases(configs, forecast, nodes, hardware, use_gpu)
    return _search_phases(config, left, forecast, nodes, hardware, use_gpu)


def _grid_phases(
    configs: Sequence[TrialConfig], forecast: Forecast, nodes: tuple[Node, ...], hardware: HardwareSettings, gpu: bool
) -> tuple[StudyPhase, ...]:
    """All configurations are known: what takes a whole card runs apart."""
    fits = [forecast.fit(one) for one in configs]
    _refuse_precisions(fits)
    # A footprint's fit is shared; each trial counts.
    groups = groups_of([one for one in fits if one.fits])
    demands = [demand_of(len(own), own, forecast.workload, forecast.target) for own in groups]
    phases = plan_demands(demands, nodes, hardware, gpu)
    return tuple(
        StudyPhase(phase, frozenset(Footprint.of(one.config) for one in own))
        for phase, own in zip(phases, groups, strict=True)
    )


def _search_phases(
    config: StudyConfig,
    left: Mapping[str, int],
    forecast: Forecast,
    nodes: tuple[Node, ...],
    hardware: HardwareSettings,
    gpu: bool,
) -> tuple[StudyPhase, ...]:
    """Configurations are found on the way: draws stand for them, and each asks for its own share when it comes."""
    fits = [forecast.fit(one) for one in likely_configurations(config, left)]
    _refuse_precisions(fits)
    demands = []
    for precision, trials in left.items():
        own = [one for one in fits if one.fits and one.config.precision == precision]
        known = bool(own) and trials > 0
        demands.append(
            demand_of(trials, own, forecast.workload, forecast.target) if known else Demand(precision, trials)
        )
    return tuple(map(StudyPhase, plan_demands(demands, nodes, hardware, gpu)))


def _refuse_precisions(fits: Sequence[Fit]) -> None:
    refusals = dict.fromkeys(one.refusal for one in fits if one.refusal)
    if refusals:
        raise PlanError("\n".join(f"{refusal[0].upper()}{refusal[1:]}" for refusal in refusals if refusal))
