"""What is said of a study's data: a sentence for each count that is not zero, and nothing of ill-typed ones."""

from __future__ import annotations

from typing import Any

import pytest

from study.records.data_notes import data_notes

KEYS = ("empty", "left_out", "unused", "dropped", "duplicates", "overlap", "shared_prompts")


@pytest.mark.parametrize("key", KEYS)
def test_each_count_has_its_sentence(key: str) -> None:
    (note,) = data_notes({"train": {"rows": 9}, "eval": {"rows": 9, **dict.fromkeys(KEYS, 0), key: 1}, "test": {}})
    assert note.startswith("1 row ")
    assert "evaluation" in note


def test_training_rows_that_are_measured_on_are_said_where_they_are_measured() -> None:
    assert data_notes({"train": {"rows": 9, "overlap": 2, "shared_prompts": 3}}) == ()
    (note,) = data_notes({"eval": {"rows": 1000, "overlap": 1000}})
    assert (
        note
        == "1,000 rows of the evaluation split’s 1,000 rows trained on too: what they measure says nothing of new rows."
    )


@pytest.mark.parametrize("statistics", [{}, {"train": None}, {"train": []}, {"train": {"empty": "3", "dropped": True}}])
def test_what_is_no_count_is_not_said(statistics: Any) -> None:
    assert data_notes(statistics) == ()
