"""Words what waits in host memory, what it takes there, and its price in time."""

from __future__ import annotations

from dataclasses import replace

from study.hardware.targets import Target
from study.plan.fitting import Fit
from study.plan.offloading.needs import Needs, epoch_seconds
from study.plan.roofline import PassTime
from study.plan.workload import Workload
from study.records.infeasible import does_not_fit
from study.records.units import format_bytes
from trainables.memory.offload import RESIDENT, Offload

LEAST_PRICE = 1.005  # from which a price differs from none in two digits


def waiting(away: Offload, layers: int) -> str:
    """For example `20 of 32 layers and moments`, or `nothing`; the model has so many `layers`."""
    return away.words_of(layers) or "nothing"


def price_of(one: Fit, workload: Workload, target: Target, asked: Workload | None = None) -> float | None:
    """How many times as long an epoch takes alone as with everything on the card; None where no time is known.

    With everything on the card it trains as `asked`, where that is another way than the workload's.
    """
    asked = asked or workload
    usual = replace(one.setting, gradient_checkpointing=asked.training.gradient_checkpointing, offload=RESIDENT)
    load = replace(one.load, rows=asked.training.micro_batch_size)
    seconds = epoch_seconds(one.setting, one.load, workload, target)
    resident = epoch_seconds(usual, load, asked, target)
    return None if seconds is None or not resident else seconds / resident


def times(ratio: float | None) -> str:
    """For example `x 1.3 the time`; nothing where it is no more, or not known."""
    if ratio is None or ratio < LEAST_PRICE:
        return ""
    return f"x {ratio:.2f} the time" if ratio < 1.1 else f"x {ratio:.1f} the time"


def hiding(time: PassTime, adapters: int) -> str:
    """Whether the pass of so many adapters waits for the bus."""
    rest = max(time.busy, time.launches)
    if time.transfer <= rest:
        return "the pack hides the bus" if adapters > 1 else "the computing hides the bus"
    return f"a pass waits for the bus: {time.transfer:.1f} s, where all else takes {rest:.1f} s"


def host_memory(target: Target) -> str:
    """What there is of host memory for what waits; nothing where it is not known."""
    if target.host_memory_bytes is None or target.host_room_bytes is None:
        return ""
    part, there = format_bytes(target.host_memory_bytes), format_bytes(target.host_room_bytes)
    return f"a card's part is {part}, {there} beside what system, Ray and libraries need"


def lacking_bytes(one: Fit, workload: Workload, target: Target) -> int:
    """The host memory with which a card would hold what lacks it."""
    return Needs(one.setting, one.load, workload, target).host_bytes(one.lacking or RESIDENT)


def refusal_words(one: Fit, workload: Workload, target: Target) -> str:
    """Why it does not fit: the card's bytes, without and with help, or those of host memory where these are short."""
    needs, layers = Needs(one.setting, one.load, workload, target), workload.shape.layers
    on_card = does_not_fit(one.device_bytes, one.capacity_bytes, target.holder)
    if one.lacking is None:
        return on_card if one.least == one.offload else f"{on_card}; {_at_least(needs, one.least)}"
    in_host = does_not_fit(needs.host_bytes(one.lacking), one.host_room_bytes or 0, "host memory")
    waits = waiting(one.lacking, layers)
    if one.lacks_host_memory_alone:
        return f"{in_host} ({waits})"
    return f"{on_card}; with {waits} in host memory it {in_host}"


def _at_least(needs: Needs, away: Offload) -> str:
    waits = waiting(away, needs.workload.shape.layers)
    return f"with {waits} in host memory it needs {format_bytes(needs.device_bytes(away))}"
