"""The one sentence on what does not fit, to the letter."""

from __future__ import annotations

from study.records.infeasible import does_not_fit
from study.records.units import GIB


def test_it_names_what_is_needed_where_and_what_is_there() -> None:
    assert does_not_fit(15.3 * GIB, 13.84 * GIB, "one NVIDIA T4") == (
        "does not fit: it needs 15.3 GiB, and one NVIDIA T4 can hold 13.84 GiB"
    )


def test_less_than_nothing_is_nothing() -> None:
    assert does_not_fit(GIB, -GIB, "the machine") == "does not fit: it needs 1 GiB, and the machine can hold 0 B"
