"""Makes the demands of a precision's trials: which run together, and what of theirs waits in host memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from search_spaces.footprint import Footprint
from study.hardware.targets import Target
from study.plan.fitting import Fit
from study.plan.forecast import Forecast
from study.plan.offloading.choice import Chosen, choose, rivals
from study.plan.offloading.ladder import Permitted
from study.plan.offloading.needs import Needs, mildest_for
from study.plan.places import AdapterBytes
from study.plan.roofline import adapters_that_pay
from study.plan.shares import MOST_PLACES, Demand, Node, Phase, device_count, places_in_room, plan_demands
from study.plan.time_model import rounds_and_seconds, step_load
from study.plan.workload import Workload
from trainables.limits import DEFAULT_PACK, MOST_PASS_TOKENS, USUAL_PASS_TOKENS
from trainables.memory.offload import Offload
from trainables.settings import HardwareSettings


@dataclass(frozen=True)
class Making:
    """What all phases of a study are made from; `listed`: a grid's, whose trials are all known."""

    forecast: Forecast
    nodes: tuple[Node, ...]
    hardware: HardwareSettings
    use_gpu: bool
    ends_together: bool
    listed: bool = False

    def of_grid(self, fits: Sequence[Fit]) -> Chosen[list[list[Fit]]]:
        """The groups that a precision's trials run in."""
        several = [one for one in fits if one.cards != 1]
        resident = [one for one in fits if one.cards == 1 and one.offload.is_none]
        helped = self.shared([one for one in fits if one.cards == 1 and not one.offload.is_none])
        if not resident and not helped:
            return Chosen(groups_of(several))
        others: list[list[Fit]] = []
        for away in self.rivals([*resident, *helped]):
            every, more = self.under(away, [*resident, *helped]), self.under(away, helped)
            others += [every] if every else []
            others += [[*resident, *more]] if resident and more else []
        chosen = choose([*resident, *helped], others, self.seconds)
        return Chosen(groups_of([*several, *chosen.way]), chosen.gain)

    def of_search(self, fits: Sequence[Fit]) -> Chosen[list[Fit]]:
        """The fits of a search's phase: of all on one card with one offload, else on as many cards as the smallest."""
        if not fits or min(fits, key=lambda one: one.adapter_bytes).cards != 1:
            return Chosen(list(fits))
        on_one = [one for one in (self.forecast.fit_with(each.config, None, 1) for each in fits) if one.fits]
        mildest = self.alike(self.shared(on_one))
        return choose(mildest, filter(None, (self.under(away, mildest) for away in self.rivals(mildest))), self.seconds)

    def shared(self, fits: Sequence[Fit]) -> list[Fit]:
        """The same trials with the mildest offload with which all of them fit; else each with its own."""
        if len({one.offload for one in fits}) <= 1:
            return list(fits)
        workload, target = self.forecast.workload, self.forecast.target
        distinct = {Footprint.of(one.config): Needs(one.setting, one.load, workload, target) for one in fits}
        away = mildest_for(list(distinct.values()), Permitted.of(workload, target))
        return (self.under(away, fits) if away else []) or list(fits)

    def alike(self, fits: Sequence[Fit]) -> list[Fit]:
        """Those that fit with one offload, of these trials' the one with which most do."""
        ways = [self.fitting(away, fits) for away in dict.fromkeys(one.offload for one in fits)]
        return max(ways, key=len, default=[])

    def under(self, away: Offload, fits: Sequence[Fit]) -> list[Fit]:
        """The same trials with this offload on one card; none where not all fit so."""
        found = self.fitting(away, fits)
        return found if len(found) == len(fits) else []

    def fitting(self, away: Offload, fits: Sequence[Fit]) -> list[Fit]:
        """Those of the trials that fit one card with this offload, as they fit then."""
        return [one for one in (self.forecast.fit_with(each.config, away, 1) for each in fits) if one.fits]

    def rivals(self, fits: Sequence[Fit]) -> Iterator[Offload]:
        """The offloads that may make these trials' packs larger; none where all are resident in packs that suffice."""
        if not all(one.offload.is_none for one in fits) or not self._suffice(groups_of(fits)):
            yield from rivals(Permitted.of(self.forecast.workload, self.forecast.target))

    def _suffice(self, groups: Sequence[Sequence[Fit]]) -> bool:
        """Whether all trials run together, in packs as large as there are trials or as pay."""
        if len(groups) != 1:
            return False
        demands, (phase,) = [self.demand(own) for own in groups], self.phases(groups)
        devices = device_count(self.nodes, self.hardware, self.use_gpu)
        bound = self.hardware.max_adapters_per_gpu or min(demands[0].most or MOST_PLACES, MOST_PLACES)
        return phase.per_device >= min(bound, math.ceil(phase.trials / devices))

    def seconds(self, fits: Sequence[Fit]) -> float | None:
        """How long these trials take in their phases, each on one card; None where that is not known."""
        groups, total = groups_of(fits), 0.0
        devices = device_count(self.nodes, self.hardware, self.use_gpu)
        for phase, own in zip(self.phases(groups), groups, strict=True):
            _, seconds = rounds_and_seconds(phase, own, devices, self.forecast.workload, self.forecast.target)
            if seconds is None:
                return None
            total += seconds
        return total

    def phases(self, groups: Sequence[Sequence[Fit]]) -> tuple[Phase, ...]:
        """A phase for each of these groups."""
        return plan_demands([self.demand(own) for own in groups], self.nodes, self.hardware, self.use_gpu)

    def demand(self, fits: Sequence[Fit]) -> Demand:
        """A trial for each of these, all of one precision, number of cards and offload."""
        smallest = min(fits, key=lambda one: one.adapter_bytes)
        assert smallest.cards is not None
        on_one = smallest.cards == 1
        return Demand(
            smallest.config.precision,
            len(fits),
            tuple(map(adapter_of, fits)) if on_one else (),
            smallest.room_bytes if on_one else None,
            smallest.cards,
            _most(smallest, fits, self.forecast.workload, self.forecast.target),
            micro_batches_in_a_pass(smallest),
            self.listed,
            self.ends_together,
            smallest.offload,
        )


def groups_of(fits: Sequence[Fit]) -> list[list[Fit]]:
    """What fits by precision, number of cards, offload, and whether one trial takes a whole card.

    Of a precision those on most cards come first, then those with most in host memory, then those that take a whole
    card.
    """
    groups: dict[tuple[str, int, Offload, bool], list[Fit]] = {}
    for one in fits:
        assert one.cards is not None
        groups.setdefault((one.config.precision, one.cards, one.offload, _takes_a_card(one)), []).append(one)
    order: list[str] = list(dict.fromkeys(one.config.precision for one in fits))
    whole = sorted(groups, key=lambda key: not key[3])
    most = sorted(whole, key=lambda key: key[2], reverse=True)
    return [groups[key] for key in sorted(most, key=lambda key: (order.index(key[0]), -key[1]))]


def adapter_of(one: Fit) -> AdapterBytes:
    """What a configuration adds to a card."""
    return AdapterBytes(one.state_bytes, one.adapter_bytes - one.state_bytes)


def micro_batches_in_a_pass(one: Fit) -> int:
    """How many micro-batches of the longest rows a usual pass has; more gain nothing. At least one."""
    return max(1, USUAL_PASS_TOKENS[one.setting.device] // (one.load.rows * one.load.tokens))


def _takes_a_card(one: Fit) -> bool:
    return one.cards == 1 and places_in_room(one.adapter_bytes, one.room_bytes) == 1


def _most(one: Fit, fits: Sequence[Fit], workload: Workload, target: Target) -> int | None:
    """The largest pack, beyond the default where that pays, and as host memory holds it; None: nothing bounds it."""
    held = [_held_by_host(each, target) for each in fits] if not one.offload.is_none else []
    if target.card is None or target.card.tensor_flops is None:
        return min([DEFAULT_PACK[one.setting.device], *held]) if held else None
    most = MOST_PASS_TOKENS["cuda"]
    pays = adapters_that_pay(workload.shape, one.setting, step_load(one, workload), target.card, most)
    return min([max(DEFAULT_PACK["cuda"], pays), *held])


def _held_by_host(one: Fit, target: Target) -> int:
    """How many such adapters host memory holds beside the base; at least the one that fits alone."""
    if target.host_room_bytes is None or target.card is None or one.host_adapter_bytes == 0:
        return MOST_PLACES
    return max(1, (target.host_room_bytes - one.host_base_bytes) // one.host_adapter_bytes)
