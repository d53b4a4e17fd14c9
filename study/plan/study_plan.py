"""The plan of a study: what each configuration needs, what runs beside what, how long it takes, what it costs.
(pure)"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from search_spaces.footprint import Footprint
from search_spaces.trial_config import TrialConfig
from study.hardware.targets import Target
from study.plan.fitting import Fit, fit
from study.plan.remedies import remedies
from study.plan.shares import (
    Demand,
    Node,
    Phase,
    device_count,
    places_in_room,
    plan_demands,
)
from study.plan.time_model import adapters_that_pay, seconds_on_device, seconds_per_epoch, step_load
from study.plan.workload import Workload
from trainables.limits import DEFAULT_PACK, MOST_PASS_TOKENS
from trainables.settings import HardwareSettings


@dataclass(frozen=True)
class PlanRow:
    """Configurations of one footprint: they need the same memory and time."""

    fit: Fit
    trials: int
    seconds_per_epoch: float | None  # alone; None where the card's rates are not known, or it does not fit
    remedies: tuple[str, ...]  # for what does not fit


@dataclass(frozen=True)
class PlannedPhase:
    """Trials that run together, one phase after another: `waves` of them, `seconds` in all, on `cards` cards."""

    phase: Phase
    waves: int
    cards: int
    seconds: float | None


@dataclass(frozen=True)
class StudyPlan:
    """What `plan` says. Seconds, hours and price are None where the card's rates or its price are not known."""

    target: Target
    workload: Workload
    rows: tuple[PlanRow, ...]
    phases: tuple[PlannedPhase, ...]
    price_per_hour: float | None

    @property
    def seconds(self) -> float | None:
        """From start to end: phases run one after another."""
        times = [phase.seconds for phase in self.phases]
        return None if None in times else sum(time for time in times if time is not None)

    @property
    def gpu_hours(self) -> float | None:
        """Hours times cards: a study holds all its cards until it ends."""
        return None if self.seconds is None or self.target.card is None else self.seconds * self.target.count / 3600

    @property
    def price(self) -> float | None:
        """In the price's currency."""
        if self.gpu_hours is None or self.price_per_hour is None:
            return None
        return self.gpu_hours * self.price_per_hour

    @property
    def calibrated(self) -> bool:
        """Whether memory is predicted by constants that were measured on such a card."""
        return self.target.calibration.constants.calibrated


def make_plan(
    configs: Sequence[TrialConfig],
    workload: Workload,
    target: Target,
    hardware: HardwareSettings,
    cores_per_node: float = 1.0,
    price_per_hour: float | None = None,
) -> StudyPlan:
    """Plans the trials of these configurations (a grid, or a sample of a space).

    `price_per_hour` overrides the catalogue's. Raises PlanError for what the hardware can never run.
    """
    fits: dict[Footprint, Fit] = {}
    for config in configs:
        if Footprint.of(config) not in fits:
            fits[Footprint.of(config)] = fit(config, workload, target)
    counts = Counter(map(Footprint.of, configs))
    feasible = [fits[Footprint.of(config)] for config in configs if fits[Footprint.of(config)].fits]
    nodes = nodes_of(target, cores_per_node)
    phases = plan_demands(demands_of(feasible, workload, target), nodes, hardware, target.card is not None)
    listed = target.card.price_per_hour if target.card else None
    return StudyPlan(
        target=target,
        workload=workload,
        rows=tuple(_row(one, counts[key], workload, target) for key, one in fits.items()),
        phases=tuple(_planned(phase, feasible, workload, target, nodes, hardware) for phase in phases),
        price_per_hour=listed if price_per_hour is None else price_per_hour,
    )


def nodes_of(target: Target, cores_per_node: float) -> tuple[Node, ...]:
    """The target as nodes; the last has fewer cards where they do not come out even."""
    if target.card is None:
        return (Node(cores_per_node, 0),) * target.count
    whole, left = divmod(target.count, target.per_node)
    cards = [target.per_node] * whole + ([left] if left else [])
    return tuple(Node(cores_per_node, count) for count in cards)


def demands_of(fits: Sequence[Fit], workload: Workload, target: Target) -> list[Demand]:
    """One demand for each precision and number of cards; trials that take a whole card by themselves come before,
    apart."""
    return [demand_of(len(own), own, workload, target) for own in groups_of(fits)]


def groups_of(fits: Sequence[Fit]) -> list[list[Fit]]:
    """What fits, by the phase that it belongs to, the phases in the order in which they run."""
    groups: dict[tuple[str, int, bool], list[Fit]] = {}
    for one in fits:
        assert one.cards is not None
        groups.setdefault((one.config.precision, one.cards, _alone(one)), []).append(one)
    order: list[str] = list(dict.fromkeys(one.config.precision for one in fits))
    return [groups[key] for key in sorted(groups, key=lambda key: (order.index(key[0]), -key[1], not key[2]))]


def demand_of(trials: int, fits: Sequence[Fit], workload: Workload, target: Target) -> Demand:
    """So many trials, of which these are some, all of one precision and number of cards."""
    smallest = min(fits, key=lambda one: one.adapter_bytes)
    assert smallest.cards is not None
    alone = smallest.cards == 1
    return Demand(
        smallest.config.precision,
        trials,
        smallest.adapter_bytes if alone else None,
        smallest.room_bytes if alone else None,
        smallest.cards,
        _most(smallest, workload, target),
    )


def _alone(one: Fit) -> bool:
    return one.cards == 1 and places_in_room(one.adapter_bytes, one.room_bytes) == 1


def _most(one: Fit, workload: Workload, target: Target) -> int | None:
    """Packs beyond the default where they pay."""
    if target.card is None or target.card.tensor_flops is None:
        return None
    most = MOST_PASS_TOKENS["cuda"]
    pays = adapters_that_pay(workload.shape, one.setting, step_load(one, workload), target.card, most)
    return max(DEFAULT_PACK["cuda"], pays)


def _row(one: Fit, trials: int, workload: Workload, target: Target) -> PlanRow:
    if not one.fits:
        return PlanRow(one, trials, None, remedies(one.config, workload, target))
    return PlanRow(one, trials, seconds_per_epoch(one, workload, target), ())


def _planned(
    phase: Phase,
    fits: Sequence[Fit],
    workload: Workload,
    target: Target,
    nodes: tuple[Node, ...],
    hardware: HardwareSettings,
) -> PlannedPhase:
    devices = device_count(nodes, hardware, target.card is not None, phase.cards)
    used = min(devices, math.ceil(phase.trials / phase.per_device))
    own = [one for one in fits if one.config.precision == phase.precision and one.cards == phase.cards]
    slowest = max(own, key=lambda one: (len(one.load.target_modules), one.load.rank))
    seconds = seconds_on_device(slowest, math.ceil(phase.trials / used), phase.per_device, workload, target)
    asked = sum(_asked(phase, one) for one in own) / phase.device_amount / phase.cards
    waves = max(math.ceil(phase.trials / phase.places), math.ceil(asked / devices - 0.01))  # shares are rounded down
    return PlannedPhase(phase, waves, used * phase.cards, seconds)


def _asked(phase: Phase, one: Fit) -> float:
    resources = phase.resources_for(one.adapter_bytes)
    return resources["GPU" if "GPU" in resources else "CPU"]
