"""Handles failed work: shrinks the passes, finds the guilty trial alone, and ends only that one."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from trainables.engine.bench import Bench
from trainables.engine.outcomes import ended_outcome
from trainables.engine.parking import parked
from trainables.engine.pass_budget import PassBudget
from trainables.engine.residents import Resident
from trainables.packed.member import discard_gradients

Unit = Callable[[Sequence[Resident]], None]
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@dataclass(frozen=True)
class Failure:
    """An error without the stack frames that would keep its tensors alive."""

    summary: str
    text: str
    out_of_memory: bool
    requested_bytes: int | None


def attempt(
    unit: Unit, chosen: Sequence[Resident], others: Sequence[Resident], bench: Bench, budget: PassBudget
) -> None:
    """Runs `unit(chosen)`, which must leave residents as they were where it raises.

    Out of memory: it is tried again with smaller passes, then for each resident alone, and at last with the `others`
    moved off the device; a resident that fails even then is infeasible. Any other error: each resident is tried alone,
    and one that fails alone has failed.
    """
    failure = failure_of(lambda: unit(chosen), chosen)
    while failure and failure.out_of_memory and not _measures(chosen) and budget.shrink():
        failure = failure_of(lambda: unit(chosen), chosen)
    if failure is None:
        return
    if len(chosen) > 1:
        for resident in chosen:
            attempt(unit, [resident], [*others, *(one for one in chosen if one is not resident)], bench, budget)
        return
    if failure.out_of_memory and others and not _measures(chosen):
        with parked([other.member for other in others]):
            failure = failure_of(lambda: unit(chosen), chosen)
    if failure:
        end_failed(chosen[0], failure, bench)


def failure_of(work: Callable[[], None], chosen: Sequence[Resident]) -> Failure | None:
    """Does the work; where it raises, discards the residents' gradients and returns what was raised, else None."""
    try:
        work()
        return None
    except Exception as error:
        failure = _describe(error)
    discard_gradients([resident.member for resident in chosen])
    if failure.out_of_memory and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return failure


def end_failed(resident: Resident, failure: Failure, bench: Bench) -> None:
    """Ends a resident that has failed alone."""
    if not failure.out_of_memory:
        resident.end(ended_outcome(bench, resident, "failed", failure.summary, error=failure.text))
        return
    facts = {
        "moment": resident.stage,
        "requested_bytes": failure.requested_bytes,
        "available_bytes": _free_bytes(bench.base.devices),
        "source": "observed",
    }
    reason = f"out of memory while {resident.stage}, alone on the device"
    resident.end(ended_outcome(bench, resident, "infeasible", reason, error=failure.summary, infeasible=facts))


def _measures(chosen: Sequence[Resident]) -> bool:
    """Whether this is the measurement alone, which no smaller pass can make smaller."""
    return chosen[0].stage == "measuring"


def _describe(error: Exception) -> Failure:
    summary = f"{type(error).__name__}: {error}"
    out_of_memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in summary
    text = "".join(traceback.format_exception(error)[-8:])
    return Failure(summary, text, out_of_memory, requested_bytes(summary))


def requested_bytes(message: str) -> int | None:
    """The bytes in torch's message ("Tried to allocate 2.00 GiB"); None where it names none."""
    match = re.search(r"[Tt]ried to allocate ([0-9.]+) ?(B|bytes|KiB|MiB|GiB)", message)
    return round(float(match[1]) * _UNITS.get(match[2], 1)) if match else None


def _free_bytes(devices: Sequence[torch.device]) -> int | None:
    """What the card with the least free memory has free; None on a CPU."""
    return min((torch.cuda.mem_get_info(device)[0] for device in devices if device.type == "cuda"), default=None)
