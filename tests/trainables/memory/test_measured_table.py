"""Predictions against the peaks that `tests.benchmarks.memory_table` measured on cards."""

import json
import statistics

import pytest

from tests.support.places import RESULTS
from tests.support.trainables.memory_cases import ALL_LINEAR, GIB, LLAMA_3
from trainables.base_model.shape import ModelShape
from trainables.memory.prediction import DEFAULT_CONSTANTS, predict
from trainables.memory.setting import AdapterLoad, MemorySetting


def table_rows():
    """What `tests.benchmarks.memory_table` measured on cards."""
    tables = [json.loads(file.read_text()) for file in sorted(RESULTS.glob("memory_table_*.json"))]
    return [row for table in tables for row in table["rows"] if row["status"] == "measured"]


def error_of(row) -> float:
    load = {**row["load"], "target_modules": tuple(row["load"]["target_modules"])}
    setting = MemorySetting.from_json(row["setting"])
    prediction = predict(ModelShape.from_json(row["shape"]), setting, AdapterLoad(**load), DEFAULT_CONSTANTS["cuda"])
    return abs(prediction.peak_memory_bytes / row["peak_memory_bytes"] - 1)


@pytest.mark.parametrize(
    ("tuned", "fewest", "median", "worst"),
    [(True, 38, 0.02, 0.05), (False, 24, 0.03, 0.07)],
    ids=["llama-3-8b", "other models"],
)
def test_the_measured_table(tuned, fewest, median, worst):
    """Nothing was fitted to the other models' rows."""
    errors = [error_of(row) for row in table_rows() if (row["model"] == "llama-3-8b") == tuned]
    assert len(errors) >= fewest
    assert statistics.median(errors) <= median
    assert max(errors) <= worst


@pytest.mark.parametrize("row", table_rows(), ids=lambda row: f"{row['model']} {row['setting']['precision']}")
def test_the_measured_base(row):
    """What is allocated before any adapter is there, against the sum of weights; 0.1 % for rounding.

    The first model was loaded into a fresh process; cuBLAS kept its workspaces for those that followed it there.
    """
    load = {**row["load"], "target_modules": tuple(row["load"]["target_modules"])}
    components = predict(
        ModelShape.from_json(row["shape"]), MemorySetting.from_json(row["setting"]), AdapterLoad(**load)
    ).components
    base = sum(components[name] for name in ("base_linears", "embedding_and_head", "norms"))
    first = (row["model"], row["setting"]["precision"]) == ("llama-3-8b", "nf4")
    assert base + (0 if first else components["libraries"]) == pytest.approx(row["base_bytes"], rel=0.001)
    assert row["peak_memory_bytes"] > row["base_bytes"]


def long_row(tokens: int, rank: int = 32) -> AdapterLoad:
    """One row for an adapter of all linear layers."""
    return AdapterLoad(rank, ALL_LINEAR, False, 1, tokens, tokens // 2)


@pytest.mark.parametrize(("tokens", "peak_gib"), [(4096, 8.37), (8192, 10.08), (15900, 13.30)])
def test_measured_peaks_of_long_rows(tokens, peak_gib):
    """One row, rank 32 at all linear layers, on an H200; within 1 %."""
    assert predict(LLAMA_3, MemorySetting("nf4", "bf16"), long_row(tokens)).peak_memory_bytes == pytest.approx(
        peak_gib * GIB, rel=0.01
    )


def test_a_row_that_ran_out_is_refused_and_one_that_ran_is_not():
    """20,000 tokens at rank 16 ran out under a T4's memory, 15,900 at rank 32 ran."""
    assert predict(LLAMA_3, MemorySetting("nf4", "bf16"), long_row(20_000, rank=16)).device_bytes > 1.05 * 14.56 * GIB
    assert predict(LLAMA_3, MemorySetting("nf4", "bf16"), long_row(15_900)).device_bytes < 14.56 * GIB
