"""Parts a study's trials into phases that run together, by predicted memory; plan and run part them alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from search_spaces.footprint import Footprint
from search_spaces.trial_config import TrialConfig
from study.config.study_config import StudyConfig
from study.errors import PlanError
from study.plan.fitting import Fit
from study.plan.forecast import Forecast, likely_configurations
from study.plan.offloading.making import Making
from study.plan.shares import Demand, Node, Phase, plan_demands, plan_phases
from trainables.settings import HardwareSettings


@dataclass(frozen=True)
class StudyPhase:
    """Trials that run together; of a grid, those of `footprints`, else (None) all of the phase's precision."""

    phase: Phase
    footprints: frozenset[Footprint] | None = None
    gain: float | None = None  # how many times as long it takes with no more in host memory than must be

    @property
    def cards_at_most(self) -> int | None:
        """How many cards a trial's base model may have: a grid's fit as they are, a search's take what is there."""
        return None if self.footprints is not None else self.phase.cards

    def holds(self, config: TrialConfig) -> bool:
        """Whether the configuration runs in this phase."""
        if config.precision != self.phase.precision:
            return False
        return self.footprints is None or Footprint.of(config) in self.footprints


def phases_of(
    config: StudyConfig,
    left: Mapping[str, int],
    ended: Sequence[TrialConfig],
    forecast: Forecast | None,
    nodes: tuple[Node, ...],
    use_gpu: bool,
) -> tuple[StudyPhase, ...]:
    """The phases of what has not `ended`, `left` trials of each precision, in the order in which they run.

    By memory where there is a forecast, else one for each precision. Ray starves trials of whole cards beside
    fractional ones, so that a grid's run apart. Raises PlanError for what the machines cannot run.
    """
    hardware = config.trial.hardware
    if forecast is None:
        return tuple(map(StudyPhase, plan_phases(left, nodes, hardware, use_gpu)))
    is_grid = config.search.algorithm == "grid"
    over = frozenset(ended) if is_grid else frozenset()
    fits = [forecast.fit_with(one, None) for one in likely_configurations(config, left) if one not in over]
    refused = refused_precisions(fits)
    if refused:
        raise PlanError("\n".join(refused))
    ends_together = config.early_stopping.algorithm == "none"
    if is_grid:
        return grid_phases(fits, forecast, nodes, hardware, use_gpu, ends_together)
    return search_phases(left, fits, forecast, nodes, hardware, use_gpu, ends_together)


def refused_precisions(fits: Sequence[Fit]) -> tuple[str, ...]:
    """Why precisions among these configurations make no sense on the hardware, each reason once."""
    return tuple(dict.fromkeys(f"{one.refusal[0].upper()}{one.refusal[1:]}" for one in fits if one.refusal))


def grid_phases(
    fits: Sequence[Fit],
    forecast: Forecast,
    nodes: tuple[Node, ...],
    hardware: HardwareSettings,
    use_gpu: bool,
    ends_together: bool = True,
) -> tuple[StudyPhase, ...]:
    """The phases of a grid, one fit for each trial; all configurations are known, and what does not fit has none.

    Of a precision what fits one card without help stays resident, and the others share the mildest offload that helps
    them all; or all share one, or the others another, where that is faster by a tenth. `ends_together`: no trial is
    stopped early. The forecast knows the offloads from then on.
    """
    making = Making(forecast, nodes, hardware, use_gpu, ends_together, listed=True)
    precisions = dict.fromkeys(one.config.precision for one in fits if one.fits)
    chosen = [making.of_grid([one for one in fits if one.fits and one.config.precision == name]) for name in precisions]
    groups = [(group, one.gain) for one in chosen for group in one.way]
    phases = making.phases([group for group, _ in groups])
    found = []
    for phase, (own, gain) in zip(phases, groups, strict=True):
        footprints = frozenset(Footprint.of(one.config) for one in own)
        forecast.settle(phase.offload, footprints)
        found.append(StudyPhase(phase, footprints, None if phase.offload.is_none else gain))
    return tuple(found)


def search_phases(
    left: Mapping[str, int],
    drawn: Sequence[Fit],
    forecast: Forecast,
    nodes: tuple[Node, ...],
    hardware: HardwareSettings,
    use_gpu: bool,
    ends_together: bool = True,
) -> tuple[StudyPhase, ...]:
    """The phases of a search, which finds its configurations on the way: `drawn` ones stand for them.

    Each trial asks for its own share when it comes. Where nothing drawn of a precision fits, its phase knows no bytes.
    Its offload is the mildest with which all drawn that fit one card with any do, or one that is faster by a tenth: a
    proposal that needs more than all drawn did is refused.
    """
    making = Making(forecast, nodes, hardware, use_gpu, ends_together)
    demands, gains = [], []
    for precision, trials in left.items():
        own = [one for one in drawn if one.fits and one.config.precision == precision] if trials > 0 else []
        chosen = making.of_search(own)
        one = making.demand(chosen.way) if own else Demand(precision, trials)
        demands.append(replace(one, trials=trials))
        gains += [chosen.gain] if trials > 0 else []
    phases = plan_demands(demands, nodes, hardware, use_gpu)
    for phase in phases:
        forecast.settle(phase.offload, [phase.precision])
    return tuple(StudyPhase(phase, gain=gain) for phase, gain in zip(phases, gains, strict=True))
