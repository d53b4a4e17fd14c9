"""A record as a flat row: one name for each value, nothing nested."""

from __future__ import annotations

from study.records.flat_row import flat_row
from study.records.results_table import COLUMNS
from tests.support.study_directory import GIB, made_up_records


def test_a_row_is_flat_and_has_the_columns_of_the_results_table() -> None:
    rows = [flat_row(record) for record in made_up_records()]
    assert all(set(row) == set(COLUMNS) for row in rows)
    assert not any(isinstance(value, dict | list | tuple) for row in rows for value in row.values())


def test_measured_and_predicted_stand_apart() -> None:
    first, infeasible = flat_row(made_up_records()[0]), flat_row(made_up_records()[13])
    assert (first["trial_id"], first["precision"], first["target_modules"]) == ("t000", "bf16", "q_v")
    assert first["peak_memory_bytes"] != first["predicted_peak_memory_bytes"]
    assert first["comparable_quality"] == "0a1b"
    assert infeasible["infeasible_requested_bytes"] == int(2.15 * GIB)
    assert infeasible["peak_memory_bytes"] is None
