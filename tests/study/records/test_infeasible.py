"""What a measured trial needs of a card, and the one sentence on what does not fit, to the letter."""

from __future__ import annotations

import math

import pytest

from study.records.infeasible import context_bytes, does_not_fit, needed_bytes
from study.records.units import GIB
from trainables.limits import MOST_CONTEXT_BYTES, USUAL_CONTEXT_BYTES


def test_it_names_what_is_needed_where_and_what_is_there() -> None:
    assert does_not_fit(15.3 * GIB, 13.84 * GIB, "one NVIDIA T4") == (
        "does not fit: it needs 15.3 GiB, and one NVIDIA T4 can hold 13.84 GiB"
    )


def test_less_than_nothing_is_nothing() -> None:
    assert does_not_fit(GIB, -GIB, "the machine") == "does not fit: it needs 1 GiB, and the machine can hold 0 B"


def measured(peak: float | None, held: float | None, device: float | None) -> dict[str, float | None]:
    return {"peak_memory_bytes": peak, "peak_reserved_bytes": held, "peak_device_bytes": device}


def test_what_looks_like_a_t4_does_not_fit_one() -> None:
    """A peak of 14.3 GiB is under 14.56 GiB; with what the allocator held and the context it is not."""
    needed = needed_bytes(measured(14.3 * GIB, 14.4 * GIB, 14.9 * GIB))
    assert needed == pytest.approx(14.9 * GIB)
    assert needed > 14.56 * GIB


@pytest.mark.parametrize(
    ("values", "of_card", "of_process"),
    [
        (measured(2.0, 3.0, 4.0), 4.0, 3.0),
        (measured(2.0, 3.0, None), 3.0 + USUAL_CONTEXT_BYTES, 3.0),
        (measured(2.0, 3.0, 17.0 * GIB), 3.0 + USUAL_CONTEXT_BYTES, 3.0),  # other processes were counted too
        (measured(2.0, 3.0, 1.0), 3.0 + USUAL_CONTEXT_BYTES, 3.0),
        (measured(2.0, None, None), 2.0, 2.0),  # on a CPU
        (measured(None, 3.0, 4.0), 4.0, 3.0),
        (measured(math.nan, None, None), None, None),
        ({}, None, None),
    ],
)
def test_needed_bytes(values: dict[str, float | None], of_card: float | None, of_process: float | None) -> None:
    assert needed_bytes(values) == of_card
    assert needed_bytes(values, of_process=True) == of_process


@pytest.mark.parametrize(
    ("held", "device", "context"),
    [
        (3.0, 4.0, 1.0),
        (0.0, float(MOST_CONTEXT_BYTES), float(MOST_CONTEXT_BYTES)),
        (0.0, MOST_CONTEXT_BYTES + 1.0, None),
        (4.0, 4.0, None),  # a process that computes has a context
        (4.0, 3.0, None),
        (None, 4.0, None),
        (3.0, None, None),
    ],
)
def test_context_bytes(held: float | None, device: float | None, context: float | None) -> None:
    assert context_bytes(held, device) == context
