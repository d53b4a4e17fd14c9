"""Words why a configuration does not fit: the one sentence that plan, record and report share."""

from __future__ import annotations

from study.records.units import format_bytes


def does_not_fit(needed_bytes: float | None, available_bytes: float | None, where: str) -> str:
    """`does not fit: it needs 15.3 GiB, and one NVIDIA T4 can hold 13.84 GiB`; None for bytes that are not known.

    `where` names what holds it: a card, several, or the machine. Less than nothing is shown as nothing.
    """
    needed = "more than there is" if needed_bytes is None else format_bytes(needed_bytes)
    there = "an unknown amount" if available_bytes is None else format_bytes(max(0, available_bytes))
    return f"does not fit: it needs {needed}, and {where} can hold {there}"
