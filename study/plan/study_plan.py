"""Plans a study: what fits, in which phases it runs, how long it takes, what it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search_spaces.footprint import Footprint
from search_spaces.trial_config import TrialConfig
from study.config.study_config import StudyConfig
from study.hardware.targets import Target
from study.plan.fitting import Fit
from study.plan.forecast import Forecast, likely_configurations
from study.plan.offloading.words import price_of
from study.plan.phases import StudyPhase, phases_of, refused_precisions
from study.plan.remedies import remedies
from study.plan.roofline import PassTime
from study.plan.shares import Node, Phase, device_count
from study.plan.time_model import full_pass, rounds_and_seconds, seconds_per_epoch
from study.plan.workload import Workload
from trainables.settings import HardwareSettings


@dataclass(frozen=True)
class PlanRow:
    """Configurations of one footprint: they need the same memory and time."""

    fit: Fit
    trials: int
    seconds_per_epoch: float | None  # alone; None where the card's rates are not known, or it does not fit
    remedies: tuple[str, ...]  # for what does not fit
    price: float | None = None  # how many times as long it takes alone as with nothing in host memory


@dataclass(frozen=True)
class PlannedPhase:
    """A phase in time: `waves` of trials, at most `at_once` in one, `seconds` in all, on `cards` cards (CPU: hosts).

    No waves where nothing that was drawn for a search fits: its trials are looked at when they are proposed.
    """

    phase: Phase
    waves: int
    at_once: int
    cards: int
    seconds: float | None
    gain: float | None = None  # how many times as long it takes with no more in host memory than must be
    host_bytes: int = 0  # at most, of one card's host
    full_pass: PassTime | None = None  # of the largest pack; None where rates are not known
    pack: int = 0  # adapters of the largest pack


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


def plan_study(
    config: StudyConfig, counts: Mapping[str, int], forecast: Forecast, nodes: tuple[Node, ...]
) -> StudyPlan:
    """The plan of a study with so many trials of each precision; for a search, of some configurations drawn by chance.

    Its phases are those that a run makes on such nodes; none where a precision is refused, since then nothing starts.
    Raises PlanError for what the hardware can never run.
    """
    hardware = config.trial.hardware
    configs = likely_configurations(config, counts)
    refused = refused_precisions([forecast.fit(one) for one in configs])
    phases = () if refused else phases_of(config, counts, (), forecast, nodes, forecast.target.card is not None)
    return make_plan(configs, phases, forecast, nodes, hardware)


def make_plan(
    configs: Sequence[TrialConfig],
    phases: Sequence[StudyPhase],
    forecast: Forecast,
    nodes: tuple[Node, ...],
    hardware: HardwareSettings,
) -> StudyPlan:
    """The plan of these trials in these phases. `hardware.price_per_hour` comes before the catalogue's."""
    caps = {one.phase.precision: one.cards_at_most for one in phases}
    fits = [forecast.fit(one, caps.get(one.precision)) for one in configs]
    counts = Counter(map(Footprint.of, configs))
    distinct = {Footprint.of(one.config): one for one in reversed(fits)}
    listed = forecast.target.card.price_per_hour if forecast.target.card else None
    return StudyPlan(
        target=forecast.target,
        workload=forecast.workload,
        rows=tuple(_row(distinct[key], trials, forecast, caps) for key, trials in counts.items()),
        phases=tuple(_planned(one, fits, forecast, nodes, hardware) for one in phases),
        price_per_hour=listed if hardware.price_per_hour is None else hardware.price_per_hour,
    )


def nodes_of(target: Target, cores_per_node: float) -> tuple[Node, ...]:
    """The target as nodes; the last has fewer cards where they do not come out even."""
    if target.card is None:
        return (Node(cores_per_node, 0),) * target.count
    whole, left = divmod(target.count, target.per_node)
    cards = [target.per_node] * whole + ([left] if left else [])
    return tuple(Node(cores_per_node, count) for count in cards)


def _row(one: Fit, trials: int, forecast: Forecast, caps: Mapping[str, int | None]) -> PlanRow:
    if not one.fits:
        target = forecast.target_of(caps.get(one.config.precision))
        return PlanRow(one, trials, None, remedies(one.config, forecast.workload, target))
    price = price_of(one, forecast.workload, forecast.target)
    return PlanRow(one, trials, seconds_per_epoch(one, forecast.workload, forecast.target), (), price)


def _planned(
    own: StudyPhase, fits: Sequence[Fit], forecast: Forecast, nodes: tuple[Node, ...], hardware: HardwareSettings
) -> PlannedPhase:
    phase, target = own.phase, forecast.target
    mine = [one for one in fits if one.fits and own.holds(one.config)]
    if not mine:
        return PlannedPhase(phase, 0, 0, 0, 0.0)
    devices = device_count(nodes, hardware, target.card is not None, phase.cards)
    rounds, seconds = rounds_and_seconds(phase, mine, devices, forecast.workload, target)
    cards = max(map(len, rounds)) * phase.cards
    most = max(map(max, rounds))
    host_bytes = max(one.host_base_bytes + most * one.host_adapter_bytes for one in mine)
    full = None if seconds is None else full_pass(mine, most, forecast.workload, target)
    return PlannedPhase(phase, len(rounds), max(map(sum, rounds)), cards, seconds, own.gain, host_bytes, full, most)
