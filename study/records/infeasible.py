"""Says how much of a card's memory a measured trial needs, and words why a configuration does not fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from study.records.units import format_bytes
from trainables.limits import MOST_CONTEXT_BYTES, USUAL_CONTEXT_BYTES


def does_not_fit(needed_bytes: float, available_bytes: float, where: str) -> str:
    """Returns for example `does not fit: it needs 15.94 GiB, and one NVIDIA T4 can hold 14.56 GiB`.

    `where` names what holds it: a card, or the machine. Where a base model leaves less than nothing, that is 0 B.
    """
    there = format_bytes(max(0, available_bytes))
    return f"does not fit: it needs {format_bytes(needed_bytes)}, and {where} can hold {there}"


def needed_bytes(measurements: Mapping[str, Any], of_process: bool = False) -> float | None:
    """Returns what a card must have for a trial; `of_process`: what a cap on the process must allow.

    A card holds the allocator's segments, fragments in them included, and CUDA's context; a cap on the process, as
    `hardware.memory_limit` is, leaves the context out. A context that was not measured is the usual one. Where the base
    model was on a CPU both are the process' peak. None where no peak was measured.
    """
    held = _finite(measurements.get("peak_reserved_bytes"))
    if held is None:
        return _finite(measurements.get("peak_memory_bytes"))
    measured = context_bytes(held, _finite(measurements.get("peak_device_bytes")))
    return held if of_process else held + (USUAL_CONTEXT_BYTES if measured is None else measured)


def context_bytes(held: float | None, device: float | None) -> float | None:
    """Returns CUDA's context of a process that had `device` bytes of a card, of which its allocator held `held`.

    None where either was not measured, or the difference is none that a context may have: beyond the most that is
    plausible, other processes were counted too.
    """
    if held is None or device is None:
        return None
    return device - held if 0 < device - held <= MOST_CONTEXT_BYTES else None


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
