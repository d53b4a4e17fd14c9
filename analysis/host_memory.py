"""Marks what was measured while a part of the training waited in host memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from study.records.record import TrialRecord

HEADING = "In host memory"
MARK = "†"
TIMED = ("train_tokens_per_second", "generated_tokens_per_second", "seconds_per_epoch", "energy_joules")
NOTE = (
    f"{MARK} Measured while a part of the training waited in host memory: time and energy have the transfers in them, "
    "and are not those of a training of which nothing waits there. The memory is what was measured with that part away."
)


def any_waited(records: Iterable[TrialRecord]) -> bool:
    """Whether a part of any of these trainings waited in host memory."""
    return any(not record.offload.is_none for record in records)


def marked(record: TrialRecord, metric: str, text: str) -> str:
    """A measurement's text, marked where it is a time or what follows from one, and a part waited in host memory."""
    waited = not record.offload.is_none and record.measurements.get(metric) is not None
    return f"{text} {MARK}" if waited and metric in TIMED else text


def cost_notice(complete: Sequence[TrialRecord]) -> str:
    """What a reader must know where costs of trials differ in what waited in host memory; empty where none does."""
    waited = sum(not record.offload.is_none for record in complete)
    if len({record.offload for record in complete}) < 2:
        return ""
    return (
        f"In {waited} of {len(complete)} complete trials a part of the training waited in host memory ({MARK}): their "
        "memory compares with that of the others, as what the device must have; their speed, time and energy do not."
    )


def costs_compare_beside_it(complete: Sequence[TrialRecord]) -> bool:
    """Whether trials for which the same waited in host memory have costs that may be compared among themselves."""
    hashes: dict[object, set[object]] = {}
    for record in complete:
        if "cost" in record.comparable:
            hashes.setdefault(record.offload, set()).add(record.comparable["cost"])
    return all(len(one) == 1 for one in hashes.values())
