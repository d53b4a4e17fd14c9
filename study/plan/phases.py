"""Parts a study's trials into phases that run together, by predicted memory; plan and run part them alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from search_spaces.footprint import Footprint
from search_spaces.trial_config import TrialConfig
from study.config.study_config import StudyConfig
from study.errors import PlanError
from study.hardware.targets import Target
from study.plan.fitting import Fit
from study.plan.forecast import Forecast, likely_configurations
from study.plan.places import AdapterBytes
from study.plan.shares import Demand, Node, Phase, places_in_room, plan_demands, plan_phases
from study.plan.time_model import adapters_that_pay, step_load
from study.plan.workload import Workload
from trainables.limits import DEFAULT_PACK, MOST_PASS_TOKENS, USUAL_PASS_TOKENS
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
    fits = [forecast.fit(one) for one in likely_configurations(config, left) if one not in over]
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

    `ends_together`: no trial is stopped early.
    """
    groups = _groups(fits)
    demands = [replace(_demand(own, forecast), listed=True, ends_together=ends_together) for own in groups]
    phases = plan_demands(demands, nodes, hardware, use_gpu)
    return tuple(
        StudyPhase(phase, frozenset(Footprint.of(one.config) for one in own))
        for phase, own in zip(phases, groups, strict=True)
    )


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
    """
    demands = []
    for precision, trials in left.items():
        own = [one for one in drawn if one.fits and one.config.precision == precision]
        one = _demand(own, forecast) if own and trials > 0 else Demand(precision, trials)
        demands.append(replace(one, trials=trials, ends_together=ends_together))
    return tuple(map(StudyPhase, plan_demands(demands, nodes, hardware, use_gpu)))


def _groups(fits: Sequence[Fit]) -> list[list[Fit]]:
    """What fits by precision, number of cards, and whether one trial takes a whole card.

    Of a precision those on most cards come first, then those that take a whole card.
    """
    groups: dict[tuple[str, int, bool], list[Fit]] = {}
    for one in fits:
        if one.fits:
            assert one.cards is not None
            groups.setdefault((one.config.precision, one.cards, _takes_a_card(one)), []).append(one)
    order: list[str] = list(dict.fromkeys(one.config.precision for one in fits if one.fits))
    return [groups[key] for key in sorted(groups, key=lambda key: (order.index(key[0]), -key[1], not key[2]))]


def _demand(fits: Sequence[Fit], forecast: Forecast) -> Demand:
    """A trial for each of these, all of one precision and number of cards."""
    smallest = min(fits, key=lambda one: one.adapter_bytes)
    assert smallest.cards is not None
    on_one = smallest.cards == 1
    return Demand(
        smallest.config.precision,
        len(fits),
        tuple(map(adapter_of, fits)) if on_one else (),
        smallest.room_bytes if on_one else None,
        smallest.cards,
        _most(smallest, forecast.workload, forecast.target),
        micro_batches_in_a_pass(smallest),
    )


def adapter_of(one: Fit) -> AdapterBytes:
    """What a configuration adds to a card."""
    return AdapterBytes(one.state_bytes, one.adapter_bytes - one.state_bytes)


def micro_batches_in_a_pass(one: Fit) -> int:
    """How many micro-batches of the longest rows a usual pass has; more gain nothing. At least one."""
    return max(1, USUAL_PASS_TOKENS[one.setting.device] // (one.load.rows * one.load.tokens))


def _takes_a_card(one: Fit) -> bool:
    return one.cards == 1 and places_in_room(one.adapter_bytes, one.room_bytes) == 1


def _most(one: Fit, workload: Workload, target: Target) -> int | None:
    """The largest pack, beyond the default where that pays; None where the card's rates are not known."""
    if target.card is None or target.card.tensor_flops is None:
        return None
    most = MOST_PASS_TOKENS["cuda"]
    pays = adapters_that_pay(workload.shape, one.setting, step_load(one, workload), target.card, most)
    return max(DEFAULT_PACK["cuda"], pays)
