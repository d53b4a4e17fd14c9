"""Records: what goes in comes out, and what is no record is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.trial_config import TrialConfig
from study.records.record import MEASUREMENTS, SCHEMA_VERSION, STATUSES, TrialRecord, flat_row
from study.records.results_table import COLUMNS
from tests.support.study_directory import GIB, made_up_records
from trainables.memory.offload import RESIDENT, Offload

CONFIG = TrialConfig("nf4", 8, 16, 0.05, ("q_proj", "v_proj"), 2e-4, seed=3)
SHARES = st.none() | st.sampled_from([0, 1]) | st.floats(0, 1)
COUNTS = ("eval_tokens", "trainable_parameters", "train_steps", "train_tokens", "restarts")
ANY_SHARE = [
    name for name in MEASUREMENTS if name not in COUNTS and not name.endswith("_bytes")
]  # what may be any number from 0 to 1
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def full_record() -> TrialRecord:
    return TrialRecord(
        study="pubmedqa",
        trial_id="t007",
        status="complete",
        config=CONFIG,
        measurements={"perplexity": 7.25, "peak_memory_bytes": 5 * 2**30, "accuracy": None},
        predictions={"peak_memory_bytes": 5 * 2**30 + 1},
        curve=({"step": 5, "train_loss": 2.5, "perplexity": 9.0, "learning_rate": 1e-4},),
        samples=({"prompt": "Fever\u2028and", "base": "\x85", "tuned": "ü\n"},),
        eval_rows={"nats": [1.5, 2.5], "tokens": [3, 4]},
        adapter="adapters/t007",
        base_model={"path": "llama", "revision": "main", "sha256": "00"},
        device={"name": "Tesla T4", "compute_dtype": "float16", "memory_source": "allocator"},
        dataset={"fingerprint": "ff"},
        comparable={"quality": "a", "cost": "b"},
    )


def test_round_trip_keeps_everything() -> None:
    record = full_record()
    assert TrialRecord.from_json(record.to_json()) == record


@given(st.sampled_from(STATUSES), TEXTS, st.dictionaries(st.sampled_from(ANY_SHARE), SHARES))
def test_round_trip_of_any_values(status: str, text: str, measurements: dict[str, object]) -> None:
    record = TrialRecord(
        study=text, trial_id="t0", status=status, config=CONFIG, reason=text, error=text, measurements=measurements
    )
    line = record.to_json()
    assert "\n" not in line
    assert TrialRecord.from_json(line) == record


def test_every_measurement_is_there_and_null_unless_given() -> None:
    values = json.loads(TrialRecord("s", "t0", "failed", CONFIG, measurements={"accuracy": 0.0}).to_json())
    assert set(values["measurements"]) == set(MEASUREMENTS)
    assert {name for name, value in values["measurements"].items() if value is not None} == {"accuracy"}
    assert values["measurements"]["accuracy"] == 0.0


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["measurements", "predictions", "eval_rows", "infeasible"])
def test_not_a_number_is_refused(field: str, number: float) -> None:
    record = replace(full_record(), **{field: {"perplexity": number}})
    with pytest.raises(ValueError, match="JSON compliant"):
        record.to_json()


@pytest.mark.parametrize("field", ["curve", "samples"])
def test_not_a_number_is_refused_within_lists(field: str) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        replace(full_record(), **{field: ({"train_loss": math.nan},)}).to_json()


@pytest.mark.parametrize("status", ["", "running", "Complete", "pruned"])
def test_unknown_status_is_refused(status: str) -> None:
    with pytest.raises(ValueError, match="status must be one of complete, stopped, infeasible, diverged, failed"):
        replace(full_record(), status=status)


def changed(**values: object) -> str:
    return json.dumps({**json.loads(full_record().to_json()), **values})


def test_later_schema_is_refused() -> None:
    with pytest.raises(ValueError, match=f"schema_version is {SCHEMA_VERSION + 1}; at most {SCHEMA_VERSION}"):
        TrialRecord.from_json(changed(schema_version=SCHEMA_VERSION + 1))


def test_unknown_keys_are_left_out() -> None:
    assert TrialRecord.from_json(changed(colour="red")) == full_record()


@pytest.mark.parametrize("moment", ["training", None])
def test_the_moment_of_an_earlier_versions_line_is_read(moment: str | None) -> None:
    """It was written as `phase`; the other facts, the order, and what has no facts at all stay as they are."""
    sizes = {"requested_bytes": 9, "available_bytes": 8, "source": "predicted"}
    record = TrialRecord.from_json(changed(infeasible={"phase": moment, **sizes}))
    assert record.infeasible == {"moment": moment, **sizes}
    assert TrialRecord.from_json(record.to_json()) == record
    assert '"phase"' not in record.to_json()
    for kept in (None, {}, sizes, {"phase": "x", "moment": "training"}):
        assert TrialRecord.from_json(changed(infeasible=kept)).infeasible == kept


def test_where_a_cost_was_taken_over_from_is_kept_and_must_be_whole() -> None:
    origin = {"directory": "/runs/first", "measured_at": "2030-01-02T03:04:05+00:00"}
    for kept in (origin, None):
        record = TrialRecord.from_json(changed(device={"cost_taken_over_from": kept}))
        assert record.device["cost_taken_over_from"] == kept
    for broken in ("/runs/first", {}, {**origin, "directory": 1}, {"directory": "/runs/first"}):
        with pytest.raises(ValueError, match="cost_taken_over_from"):
            TrialRecord.from_json(changed(device={"cost_taken_over_from": broken}))


def test_config_is_validated() -> None:
    broken = {**CONFIG.to_dict(), "rank": 0}
    with pytest.raises(ValueError, match="rank must be an integer from 1"):
        TrialRecord.from_json(changed(config=broken))


@pytest.mark.parametrize("line", ["", "{", "{}", '{"schema_version": 1}', full_record().to_json()[:-1]])
def test_what_is_no_whole_record_is_refused(line: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        TrialRecord.from_json(line)


# -- as a flat row of a table ------------------------------------------------------------------------------------------


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


def test_what_waited_in_host_memory_is_read_and_must_be_whole_numbers_and_flags() -> None:
    assert full_record().offload == RESIDENT
    assert flat_row(full_record())["in_host_memory"] is None
    assert TrialRecord.from_json(changed(device={"offload": None})).offload == RESIDENT
    offload = Offload(layers=32, optimizer_state=True)
    device = {"offload": {**offload.to_dict(), "of_a_later_version": 1}, "streamed_bytes": 7}
    record = TrialRecord.from_json(changed(device=device))
    assert record.offload == offload
    assert flat_row(record)["in_host_memory"] == "32 layers and moments"
    for broken in ("all", {"layers": "all"}, {"layers": -1}, {"layers": None}, {"embedding": 1}):
        with pytest.raises(ValueError, match=r"device\.offload"):
            TrialRecord.from_json(changed(device={"offload": broken}))
