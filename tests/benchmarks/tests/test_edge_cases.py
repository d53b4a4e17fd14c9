"""The configurations of the edge study: near the edge, mixed in length, the same every time."""

from __future__ import annotations

import pytest

from tests.benchmarks.edge_study import summary
from tests.benchmarks.support import edge_cases
from tests.benchmarks.support.edge_cases import (
    GIB,
    SEEN_TO_RUN_OUT,
    T4_BYTES,
    EdgeCase,
    between,
    planned,
    small_card,
    spread,
)
from trainables.base_model.shape import ModelShape

LLAMA_3_8B = ModelShape(4096, 14336, 32, 32, 8, 128, 128256, False, 65 * 4096)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of the grid, which takes a second."""
    monkeypatch.setattr(edge_cases, "_ROWS", (2, 4, 8))
    monkeypatch.setattr(edge_cases, "_RANKS", (8, 32, 128))


def test_cases_lie_within_the_edge_and_what_the_plan_admits_lies_under_it() -> None:
    found = between(LLAMA_3_8B, small_card(), 0.97 * T4_BYTES, 1.03 * T4_BYTES)
    assert {fit.fits for _, fit in found} == {True, False}
    for _, fit in found:
        assert 0.97 * T4_BYTES <= fit.device_bytes <= 1.03 * T4_BYTES
        assert fit.fits == (fit.device_bytes <= T4_BYTES)


def test_a_drawing_is_repeated_and_takes_each_kind_in_turn() -> None:
    found = between(LLAMA_3_8B, small_card(), 0.9 * T4_BYTES, T4_BYTES)
    drawn = spread(found, 8)
    assert [case for case, _ in drawn] == [case for case, _ in spread(found, 8)]
    assert {case.checkpointing for case, _ in drawn} == {True, False}
    assert len({case for case, _ in spread(found, 10_000)}) == len(found)


@pytest.mark.parametrize("case", SEEN_TO_RUN_OUT, ids=lambda case: case.words)
def test_rows_are_mixed_in_length_and_the_longest_is_planned_for(case: EdgeCase) -> None:
    lengths = [len(row.tokens) for row in case.data]
    assert lengths == case.lengths
    assert max(lengths) == case.tokens
    assert case.tokens // 4 <= min(lengths) < case.tokens
    fit = planned(case, LLAMA_3_8B, small_card())
    assert (fit.load.rows, fit.load.tokens) == (case.rows, case.tokens)


def test_of_what_once_ran_out_only_what_has_room_is_admitted() -> None:
    """All five were admitted with 2 % of the peak kept free; the last, which then ran out too, has 1.5 GiB now."""
    fits = [planned(case, LLAMA_3_8B, small_card()) for case in SEEN_TO_RUN_OUT]
    assert [fit.fits for fit in fits] == [False, False, False, False, True]
    assert T4_BYTES - fits[-1].device_bytes > 1.5 * GIB


def test_both_kinds_of_error_are_counted() -> None:
    rows = [{"admitted": admitted, "ran": ran} for admitted, ran in ((1, 1), (1, 0), (0, 1), (0, 0), (0, 0))]
    assert summary(rows) == "admitted: 2, of them ran out: 1; refused: 3, of them would run: 1"
