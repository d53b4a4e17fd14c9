"""What a trial's end says: every measurement in closed form, and no number in JSON that is none."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch

from study.records.record import MEASUREMENTS, TrialRecord
from study.run.recorder import record_of
from tests.support.lora_cases import lora_config, new_member
from tests.support.small_engines import BENCH_ROWS, a_bench
from tests.support.small_models import tiny_llama
from trainables.engine.outcomes import complete_outcome, ended_outcome
from trainables.engine.residents import Resident
from trainables.measure.evaluation import Evaluation
from trainables.measure.training_cost import TrainingCost
from trainables.memory.offload import Offload
from trainables.packed.packed_model import PackedModel
from trainables.protocol import Outcome

COST = TrainingCost(
    peak_memory_bytes=10**9, peak_reserved_bytes=None, peak_device_bytes=None, seconds_per_token=0.01,
    seconds_per_update=0.5, joules_per_token=0.25, generated_tokens_per_second=20.0,
)  # fmt: skip
FINAL = Evaluation((2.0, 4.0), (1, 2), (True, False))
TEST = Evaluation((6.0,), (4,), (True,))
SAMPLES = ({"prompt": "p", "base": "b", "tuned": "t"},)


@pytest.fixture
def resident() -> Resident:
    member = new_member(PackedModel(tiny_llama(layers=1)), lora_config(rank=2, target_modules="q_v"), BENCH_ROWS)
    resident = Resident("t1", 2, member)
    resident.member.step, resident.member.train_tokens, resident.history.pack_size_sum = 4, 200, 10
    resident.history.curve.append({"step": 4, "train_loss": 1.0, "perplexity": 5.0, "learning_rate": 0.1})
    resident.note_pack_peak(3 * 10**9)
    resident.final, resident.test, resident.samples = FINAL, TEST, SAMPLES
    return resident


def recorded(outcome: Outcome) -> TrialRecord:
    """The outcome as Tune's result carries it, made a record, written and read again."""
    values = json.loads(json.dumps(asdict(outcome), allow_nan=False))
    return TrialRecord.from_json(record_of("study", "t1", lora_config(), values).to_json())


def test_a_complete_trials_measurements_in_closed_form(resident: Resident) -> None:
    bench = a_bench(evaluation=Evaluation((9.0,), (3,), (False,)), generated_tokens_per_second=30.0)
    record = recorded(complete_outcome(bench, resident, COST))
    epoch_tokens = sum(len(row.tokens) for row in BENCH_ROWS)
    epoch_seconds = epoch_tokens * 0.01 + 3 * 0.5  # ten rows are three steps of four
    assert 0 <= record.measurements["wall_seconds"] < 60
    assert {name: value for name, value in record.measurements.items() if name != "wall_seconds"} == {
        "perplexity": pytest.approx(math.exp(2)), "eval_nats": 6.0, "eval_tokens": 3, "accuracy": 0.5,
        "base_perplexity": pytest.approx(math.exp(3)), "base_accuracy": 0.0,
        "test_perplexity": pytest.approx(math.exp(1.5)), "test_accuracy": 1.0,
        "peak_memory_bytes": 10**9, "peak_reserved_bytes": None, "peak_device_bytes": None,
        "pack_peak_memory_bytes": 3 * 10**9, "mean_pack_size": 2.5,
        "train_tokens_per_second": epoch_tokens / epoch_seconds,
        "seconds_per_epoch": pytest.approx(epoch_seconds), "generated_tokens_per_second": 20.0,
        "base_generated_tokens_per_second": 30.0, "energy_joules": 50.0,
        "trainable_parameters": 2 * (32 + 32 + 32 + 16), "train_steps": 4, "train_tokens": 200, "train_seconds": 0.0,
        "restarts": 2,
    }  # fmt: skip
    assert record.status == "complete"
    assert record.adapter == "adapters/t1"
    assert record.samples == SAMPLES
    assert record.eval_rows == {"nats": [2.0, 4.0], "tokens": [1, 2]}
    assert record.test_rows == {"nats": [6.0], "tokens": [4]}
    assert record.curve == ({"step": 4, "train_loss": 1.0, "perplexity": 5.0, "learning_rate": 0.1},)
    assert record.base_model == {"path": "some/model", "revision": "abc", "sha256": "0123"}
    assert (record.device["compute_dtype"], record.device["memory_source"]) == ("bfloat16", "process resident peak")


def test_cards_that_hold_the_base_together_are_told_apart(resident: Resident) -> None:
    one = complete_outcome(a_bench(), resident, replace(COST, card_peak_bytes=(5,)))
    assert "card_peak_memory_bytes" not in one.device
    bench = a_bench()
    cards = (torch.device("cuda", 0), torch.device("cuda", 1))
    base = SimpleNamespace(**{**vars(bench.base), "devices": cards})  # the name is asked of the first: a processor here
    two = complete_outcome(replace(bench, base=base), resident, replace(COST, card_peak_bytes=(5, 7)))  # type: ignore[arg-type]
    assert two.device["card_peak_memory_bytes"] == [5, 7]
    assert two.device["memory_source"] == "cuda allocator peak, sum over 2 cards"


def test_what_waited_in_host_memory_stands_in_the_record(resident: Resident) -> None:
    assert {"offload", "streamed_bytes"}.isdisjoint(complete_outcome(a_bench(), resident, COST).device)
    bench, offload = a_bench(), Offload(layers=2, embedding=True)
    blocks = {0: SimpleNamespace(nbytes=512), 1: SimpleNamespace(nbytes=1024)}
    base = SimpleNamespace(**vars(bench.base), blocks=blocks)
    streamed = replace(bench, base=base, offload=offload)  # type: ignore[arg-type]
    record = recorded(complete_outcome(streamed, resident, COST))
    assert (record.offload, record.device["streamed_bytes"]) == (offload, 1536)
    whole = recorded(complete_outcome(bench, resident, COST))
    assert record.comparable["quality"] == whole.comparable["quality"]
    assert record.comparable["cost"] != whole.comparable["cost"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, 800.0])
def test_a_number_that_is_none_becomes_null(bad: float, resident: Resident) -> None:
    """The base's and the test split's perplexity may overflow where the trial's own does not."""
    broken = Evaluation((bad,), (1,), None)
    resident.test = broken
    record = recorded(complete_outcome(a_bench(evaluation=broken), resident, COST))
    assert record.measurements["test_perplexity"] is None
    assert record.measurements["base_perplexity"] is None
    assert record.measurements["perplexity"] == pytest.approx(math.exp(2))
    ended = recorded(ended_outcome(a_bench(evaluation=broken), resident, "diverged", "the loss was nan at step 4"))
    assert ended.measurements["base_perplexity"] is None


def test_what_was_not_measured_is_null(resident: Resident) -> None:
    resident.test = resident.history.pack_peak_memory_bytes = None
    resident.final = replace(FINAL, correct=None)
    cost = replace(COST, joules_per_token=None, generated_tokens_per_second=None)
    measured = recorded(complete_outcome(a_bench(), resident, cost)).measurements
    for name in (
        "accuracy", "base_perplexity", "base_accuracy", "test_perplexity", "test_accuracy", "energy_joules",
        "generated_tokens_per_second", "base_generated_tokens_per_second", "pack_peak_memory_bytes",
    ):  # fmt: skip
        assert measured[name] is None, name


@pytest.mark.parametrize("status", ["infeasible", "diverged", "failed"])
def test_a_trial_that_ended_early_keeps_what_is_known(status: str, resident: Resident) -> None:
    resident.member.step = resident.member.train_tokens = 0
    resident.history.pack_peak_memory_bytes = None
    infeasible = {"moment": "measuring", "requested_bytes": 5, "available_bytes": None, "source": "observed"}
    outcome = ended_outcome(
        a_bench(), resident, status, "reason", error="text", infeasible=infeasible if status == "infeasible" else None
    )
    record = recorded(outcome)
    assert (record.status, record.reason, record.error) == (status, "reason", "text")
    assert record.infeasible == (infeasible if status == "infeasible" else None)
    assert record.adapter is None
    assert record.eval_rows is None
    known = {name for name in MEASUREMENTS if record.measurements[name] is not None}
    progress = {"train_steps", "train_tokens", "train_seconds", "wall_seconds", "restarts"}
    assert known == {"trainable_parameters", *progress}
    assert len(record.curve) == 1
