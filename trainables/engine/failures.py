"""Handles failed work: shrinks the passes, finds the guilty trial alone, and ends only that one."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from search_spaces.footprint import Footprint
from trainables.engine.bench import Bench, device_name, memory_conditions
from trainables.engine.outcomes import ended_outcome
from trainables.engine.parking import bring_back, parked
from trainables.engine.pass_budget import PassBudget
from trainables.engine.release import out_of_memory, release
from trainables.engine.residents import Resident
from trainables.measure.evaluation import Evaluation
from trainables.packed.member import discard_gradients
from trainables.verdicts import RanOut

Unit = Callable[[Sequence[Resident]], None]
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE = r"([0-9.]+) ?(B|bytes|KiB|MiB|GiB)"


@dataclass(frozen=True)
class Failure:
    """An error without the stack frames that would keep its tensors alive."""

    summary: str
    text: str
    out_of_memory: bool


def attempt(
    unit: Unit, chosen: Sequence[Resident], others: Sequence[Resident], bench: Bench, budget: PassBudget
) -> None:
    """Runs `unit(chosen)`, which must leave residents as they were where it raises.

    Out of memory: it is tried again with smaller passes, then for each resident alone, and at last as `attempt_alone`
    does. Any other error: each resident is tried alone, and one that fails alone has failed.
    """
    failure = failure_of(lambda: unit(chosen), chosen, bench)
    while failure and failure.out_of_memory and not _measures(chosen) and budget.shrink():
        failure = failure_of(lambda: unit(chosen), chosen, bench)
    if failure is None:
        return
    if len(chosen) > 1:
        for resident in chosen:
            if not resident.member.away:  # it found no room after one before it was tried alone: it waits for its turn
                attempt(unit, [resident], [*others, *(one for one in chosen if one is not resident)], bench, budget)
    elif failure.out_of_memory:
        attempt_alone(unit, chosen[0], others, bench)
    else:
        end_failed(chosen[0], failure, bench)


def attempt_alone(unit: Unit, resident: Resident, others: Sequence[Resident], bench: Bench, tries: int = 1) -> None:
    """Runs `unit` for one resident while the `others` are off the device; one that runs out then is infeasible.

    A resident that was itself waiting off the device comes back first. Of the others those come back afterwards that
    find room.
    """

    def work() -> None:
        if not _measures([resident]):
            bring_back(resident.member)
        unit([resident])

    failures: list[Failure | None] = []

    def alone() -> None:
        bench.tries_alone = True
        with parked([other.member for other in others]):
            while len(failures) < tries and (not failures or failures[-1]):
                failures.append(failure_of(work, [resident], bench))

    not_alone = failure_of(alone, [resident], bench)
    bench.tries_alone = False
    failure = failures[-1] if failures else not_alone
    if failure:
        end_failed(resident, failure, bench)


def failure_of(work: Callable[[], None], chosen: Sequence[Resident], bench: Bench) -> Failure | None:
    """Does the work; where it raises, discards the residents' gradients and returns what was raised, else None.

    All memory that the failed work took is free again when it returns.
    """
    try:
        work()
        return None
    except Exception as error:
        failure = _describe(error, bench.base.device)
        discard_gradients([resident.member for resident in chosen])
        release(error)
    return failure


def end_failed(resident: Resident, failure: Failure, bench: Bench) -> None:
    """Ends a resident that has failed alone; what ran out of memory is remembered for those of its footprint."""
    if not failure.out_of_memory:
        resident.end(ended_outcome(bench, resident, "failed", failure.summary, error=failure.text))
        return
    room = room_of(failure.summary)
    facts = {
        "moment": resident.stage,
        "requested_bytes": requested_bytes(failure.summary),
        "available_bytes": room.available_bytes,
        "shared_bytes": room.shared_bytes,
        "source": "observed",
        "device": device_name(bench.base.device),
        "conditions": memory_conditions(bench).to_dict(),
    }
    verdict = RanOut(resident.trial_id, facts)
    reason = verdict.reason_of_own()
    resident.end(ended_outcome(bench, resident, "infeasible", reason, error=failure.summary, infeasible=facts))
    if verdict.of_the_footprint:
        bench.ran_out.setdefault(Footprint.of(resident.config), verdict)


def end_as_kin(resident: Resident, verdict: RanOut, bench: Bench) -> None:
    """Ends a resident that has not started, since one of its footprint ran out of memory alone."""
    reason, facts = verdict.reason_of_kin("measured"), verdict.facts_of_kin()
    resident.end(ended_outcome(bench, resident, "infeasible", reason, infeasible=facts))


def end_diverged(resident: Resident, reason: str, bench: Bench) -> None:
    """Ends a resident whose training, or what it was measured by, is not finite."""
    resident.end(ended_outcome(bench, resident, "diverged", reason))


def end_lost(resident: Resident, evaluation: Evaluation, bench: Bench) -> None:
    """Ends a resident whose evaluation is not finite."""
    when = f"after optimizer step {resident.member.step}" if resident.member.step else "before the first step"
    end_diverged(resident, f"in the evaluation {when} {evaluation.not_finite}", bench)


def _measures(chosen: Sequence[Resident]) -> bool:
    """Whether this is the measurement alone, which no smaller pass can make smaller."""
    return chosen[0].stage == "measuring"


def _describe(error: Exception, device: torch.device) -> Failure:
    summary = f"{type(error).__name__}: {error}"
    text = "".join(traceback.format_exception(error)[-8:])
    return Failure(summary, text, out_of_memory(error, device))


def requested_bytes(message: str) -> int | None:
    """The bytes in torch's message ("Tried to allocate 2.00 GiB"); None where it names none."""
    return _bytes(rf"[Tt]ried to allocate {_SIZE}", message)


@dataclass(frozen=True)
class Room:
    """What was there when memory ran out, None where the message does not say.

    `available_bytes` are what the allocator could still have taken, of the card and of its own limit. `shared_bytes`
    are what other processes and this one's context held of the card, where the card and not the limit was full.
    """

    available_bytes: int | None = None
    shared_bytes: int | None = None


def room_of(message: str) -> Room:
    """Reads the room from torch's message, which counts it before anything is freed."""
    free, total = _bytes(rf"of which {_SIZE} is free", message), _bytes(rf"total capacity of {_SIZE}", message)
    used = _bytes(rf"{_SIZE} is allocated by PyTorch", message)
    idle = _bytes(rf"{_SIZE} is reserved by PyTorch but unallocated", message)
    if free is None or total is None or used is None or idle is None:
        return Room()
    reserved, limit = used + idle, _bytes(rf"{_SIZE} allowed", message)
    within_limit = free if limit is None else max(0, limit - reserved)
    shared = max(0, total - free - reserved) if free <= within_limit else 0
    return Room(min(free, within_limit), shared)


def _bytes(pattern: str, message: str) -> int | None:
    match = re.search(pattern, message)
    return round(float(match[1]) * _UNITS.get(match[2], 1)) if match else None
