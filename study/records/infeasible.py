"""Words why a configuration does not fit: the one sentence that plan, record and report share."""

from __future__ import annotations

from study.records.units import format_bytes


def does_not_fit(needed_bytes: float, available_bytes: float, where: str) -> str:
    """Returns for example `does not fit: it needs 15.3 GiB, and one NVIDIA T4 can hold 13.84 GiB`.

    `where` names what holds it: a card, or the machine. Where a base model leaves less than nothing, that is 0 B.
    """
    there = format_bytes(max(0, available_bytes))
    return f"does not fit: it needs {format_bytes(needed_bytes)}, and {where} can hold {there}"
