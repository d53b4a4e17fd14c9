"""The table of all records: one flat row a trial, the same columns whatever there is."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from study.errors import StoreError
from study.records.results_table import COLUMNS
from study.records.store import ResultsStore
from tests.support.stored_records import record


def test_the_table_holds_each_record_flat(tmp_path: Path) -> None:
    with ResultsStore(tmp_path) as store:
        store.append(
            record(
                "t000",
                measurements={"perplexity": 7.25, "peak_memory_bytes": 5 * 2**30 + 1, "accuracy": 0.0},
                predictions={"peak_memory_bytes": 5 * 2**30, "adapter_bytes": 7},
                device={"name": "Tesla T4", "compute_dtype": "float16", "memory_source": "allocator"},
                comparable={"quality": "q", "cost": "c"},
                adapter="adapters/t000",
            )
        )
        facts = {"moment": "training", "requested_bytes": 2**34, "available_bytes": 2**33, "source": "predicted"}
        store.append(record("t001", status="infeasible", reason="too large", infeasible=facts))
        file = store.write_table()
    first, second = pq.read_table(file).to_pylist()
    assert list(first) == [*COLUMNS, "predicted_adapter_bytes"]
    assert (first["precision"], first["rank"], first["target_modules"], first["seed"]) == ("nf4", 8, "q_v", 0)
    assert (first["perplexity"], first["peak_memory_bytes"], first["accuracy"]) == (7.25, 5 * 2**30 + 1, 0.0)
    assert (first["predicted_peak_memory_bytes"], first["predicted_adapter_bytes"]) == (5 * 2**30, 7)
    assert (first["device"], first["comparable_cost"], first["adapter"]) == ("Tesla T4", "c", "adapters/t000")
    assert first["test_perplexity"] is None
    assert (second["status"], second["reason"], second["perplexity"]) == ("infeasible", "too large", None)
    assert {name: second[f"infeasible_{name}"] for name in facts} == facts


def test_the_table_has_the_same_columns_whatever_there_is(tmp_path: Path) -> None:
    with ResultsStore(tmp_path) as store:
        empty = pq.read_schema(store.write_table())
        store.append(record("t000"))
        assert pq.read_schema(store.write_table()).equals(empty)
        assert pq.read_table(tmp_path / "results.parquet").num_rows == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "results.jsonl", "results.parquet"]


def test_a_table_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "results.parquet").mkdir()
    with pytest.raises(StoreError, match=r"results\.parquet must be writable"):
        ResultsStore(tmp_path).write_table()
    assert [path.name for path in tmp_path.iterdir()] == ["results.parquet"]
