"""What fits on which cards, and what would help where it does not."""

import dataclasses
import json

import pytest

from study.plan.fitting import Fit, fit, fit_with, infeasible_facts, memory_setting
from tests.support.places import RESULTS
from tests.support.plan_cases import GIB, LLAMA_3_8B, PAPER_GRID, cards, config, cpus, on_cards, workload
from trainables.base_model.shape import ModelShape
from trainables.memory.offload import RESIDENT
from trainables.memory.setting import MemorySetting
from trainables.memory.slack import slack_bytes
from trainables.memory.weights import FROZEN


def test_nf4_fits_one_t4_and_fp16_takes_two_of_one_node():
    for one in PAPER_GRID:
        alone, together = fit(one, on_cards(), cards(count=4, per_node=1)), fit(one, on_cards(), cards(count=4))
        assert together.fits
        assert together.cards == (1 if one.precision == "nf4" else 2)
        assert alone.fits == (one.precision == "nf4")
        assert len(together.predictions) == together.cards


def test_what_fits_needs_no_more_than_a_card_has_and_the_rest_more():
    for rank in (8, 64, 128, 200, 230, 256):
        one = fit(config(rank=rank, targets="all_linear"), workload(), cards(count=1))
        assert one.capacity_bytes == cards().memory_bytes
        assert one.fits == (one.device_bytes <= one.capacity_bytes)
        if one.fits:
            assert one.adapter_bytes <= one.room_bytes


def measured_rows():
    text = (RESULTS / "memory_table_h100.json").read_text(encoding="utf-8")
    rows = (row for row in json.loads(text)["rows"] if row["status"] == "measured")
    return [row for row in rows if (row["model"], row["setting"]["precision"]) == ("llama-3-8b", "nf4")]


def fit_of(row, limit_bytes: int) -> Fit:
    """A measured configuration, as a study would have it, on an H100 that is capped."""
    load, checkpointing = row["load"], row["setting"]["gradient_checkpointing"]
    training = {"micro_batch_size": load["rows"], "gradient_checkpointing": checkpointing}
    share = load["targets"] / (load["rows"] * load["tokens"])
    own = dataclasses.replace(workload(load["tokens"], **training), target_share=share)
    targets = "q_v" if len(load["target_modules"]) == 2 else "all_linear"
    one = config("nf4", load["rank"], targets, lora_dropout=0.05 if load["dropout"] else 0.0)
    return fit_with(one, own, dataclasses.replace(cards("h100", count=1), limit_bytes=limit_bytes), RESIDENT)


@pytest.mark.parametrize("row", measured_rows(), ids=lambda row: f"{row['load']['rank']}-{row['peak_memory_bytes']}")
def test_at_the_edge_what_is_admitted_fits_and_what_fits_is_admitted(row):
    """Against peaks that a card measured, under caps from under to over them: nothing admitted exceeds its cap, and
    nothing is refused that leaves the cap the reserve for fragments and 1 % (the model's error)."""
    peak = row["peak_memory_bytes"]
    caps = [round(near * peak) for near in (0.8, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999, 1.001, 1.01, 1.02, 1.03, 1.1)]
    for cap in (*caps, 8 * GIB, 12 * GIB, round(14.56 * GIB), 24 * GIB):
        one = fit_of(row, cap)
        assert one.setting == MemorySetting.from_json(row["setting"])
        assert peak <= cap or not one.fits
        weights = sum(one.largest.components[name] for name in FROZEN)
        assert one.fits or 1.01 * peak + slack_bytes(one.setting, peak - weights, one.largest.constants) > cap


def test_a_limit_caps_what_the_host_may_hold_beside_cudas_context():
    big = cards("h200", count=1)
    for limit in (5 * GIB, 6 * GIB, 8 * GIB):
        one = fit(config(), workload(), dataclasses.replace(big, limit_bytes=limit))
        assert one.capacity_bytes == limit + one.largest.constants.context_bytes
        assert one.fits == (one.largest.reserved_bytes <= limit)
    assert fit(config(), workload(), dataclasses.replace(big, limit_bytes=500 * GIB)).capacity_bytes == big.memory_bytes


def test_the_records_facts_of_what_does_not_fit():
    one = fit(config("fp16"), on_cards(), cards(count=1))
    facts = infeasible_facts(one)
    assert facts["requested_bytes"] > facts["available_bytes"]
    assert facts["source"] == "predicted"
    assert facts["moment"] == one.largest.largest_moment[0]
    assert sum(facts["components"].values()) == facts["requested_bytes"] == one.device_bytes
    assert facts["available_bytes"] == cards().memory_bytes
    assert {"fragments", "context"} <= set(facts["components"])


def test_bf16_on_a_t4_is_refused_unless_forced():
    assert fit(config("bf16"), workload(), cards()).refusal
    assert not fit(config("bf16"), workload(), cards()).fits
    forced = dataclasses.replace(workload(), force_bf16=True)
    assert fit(config("bf16"), forced, cards()).fits
    assert fit(config("bf16"), workload(), cards("a100-80", 1)).fits


def test_a_setting_follows_the_card_and_the_model():
    mistral = dataclasses.replace(workload(), shape=dataclasses.replace(LLAMA_3_8B, model_type="mistral"))
    assert memory_setting("nf4", workload(), cards("t4")).compute_precision == "fp16"
    assert memory_setting("nf4", workload(), cards("l4")).compute_precision == "bf16"
    assert memory_setting("nf4", workload(), cards("t4")).attention == "memory_efficient"
    assert memory_setting("nf4", mistral, cards("t4")).attention == "memory_efficient"
    assert memory_setting("nf4", mistral, cards("l4")).attention == "flash"
    on_cpu = memory_setting("nf4", workload(), cpus(64 * GIB))
    assert (on_cpu.device, on_cpu.compute_precision, on_cpu.attention) == ("cpu", "fp32", "cpu")
    assert memory_setting("bf16", workload(), cpus(64 * GIB, cpu_computes_bf16=True)).compute_precision == "bf16"
    assert memory_setting("fp32", workload(), cpus(64 * GIB, cpu_computes_bf16=True)).compute_precision == "fp32"


def test_a_base_is_spread_over_the_cards_of_one_machine_that_the_study_may_take():
    assert fit(config("fp16"), on_cards(), cards(count=4, per_node=1)).cards is None
    assert fit(config("fp16"), on_cards(), cards(count=1, per_node=4)).cards is None
    spread = fit(config("fp16"), on_cards(), cards(count=4))
    assert (spread.cards, len(spread.predictions)) == (2, 2)
    assert spread.peak_memory_bytes == sum(one.peak_memory_bytes for one in spread.predictions)
    assert spread.device_bytes <= spread.capacity_bytes < spread.peak_memory_bytes


def test_fp16_on_a_cpu_is_refused():
    assert "needs a GPU" in fit(config("fp16"), workload(), cpus(64 * GIB)).refusal
    assert fit(config("nf4"), workload(), cpus(64 * GIB)).refusal is None


def test_a_cpu_holds_what_its_memory_holds():
    small = dataclasses.replace(workload(), shape=ModelShape(576, 1536, 30, 9, 3, 64, 49152, True, 61 * 576))
    assert fit(config("fp32"), small, cpus(4 * GIB)).fits
    assert not fit(config("fp32"), small, cpus(GIB * 3 // 4)).fits
    assert not fit(config("fp32"), workload(), cpus(16 * GIB)).fits


def test_an_adapter_of_the_upper_half_costs_less():
    """Half of the states, and of the rows' bytes that layers keep; in a pack its rows may have to go through all."""
    load, target = workload(), cards("t4", count=1)
    whole, upper = (fit(config(layers=layers), load, target) for layers in (None, "last_half"))
    assert (upper.load.layers, upper.load.reached) == (16, 16)
    assert 2 * upper.state_bytes == whole.state_bytes
    assert 2 * upper.components["layer_inputs"] == whole.components["layer_inputs"]
    assert upper.peak_memory_bytes < whole.peak_memory_bytes
    assert whole.adapter_bytes - upper.adapter_bytes == whole.state_bytes - upper.state_bytes
