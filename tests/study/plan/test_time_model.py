"""Predicted seconds: closed forms of the roofline, and what was measured (within 15 %)."""

import dataclasses

import pytest

from search_spaces.trial_config import TARGET_SETS
from study.hardware.gpu_catalogue import find_gpu
from study.plan.fitting import fit
from study.plan.roofline import adapters_that_pay, pass_time, update_seconds
from study.plan.time_model import rows_of_pass, seconds_of_rounds, step_seconds, total_steps
from tests.support.plan_cases import LLAMA_3_8B, cards, config, workload
from trainables.memory.setting import AdapterLoad, MemorySetting, Pass


def test_steps_are_those_that_are_trained():
    assert total_steps(workload()) == 29
    assert total_steps(workload(epochs=2.5)) == 73
    assert total_steps(workload(max_steps=7)) == 7


@pytest.mark.parametrize("name", ["t4", "h200"])
def test_a_pass_roofline(name):
    """Twice the rows: twice the products, the same dequantization; checkpointing computes forward again."""
    card, setting = find_gpu(name), MemorySetting("nf4", "fp16")
    load = AdapterLoad(16, ("q_proj", "v_proj"), False, 1, 512, 128)
    one, two = (pass_time(LLAMA_3_8B, setting, Pass((load,) * count), card) for count in (1, 2))
    assert two.products == pytest.approx(2 * one.products)
    assert two.dequantization == one.dequantization
    assert one.seconds >= one.busy
    plain = pass_time(LLAMA_3_8B, dataclasses.replace(setting, gradient_checkpointing=False), Pass((load,)), card)
    assert plain.dequantization == pytest.approx(one.dequantization * 2 / (3 - 4096 * 14336 / 218_103_808))
    assert plain.busy < one.busy
    half = pass_time(LLAMA_3_8B, MemorySetting("fp16", "fp16"), Pass((load,)), card)
    assert half.dequantization == 0


def test_what_was_measured_of_the_h200():
    """Field measurements of a prototype: 31 ms of products and 23 ms of dequantization for one row of 512 tokens."""
    load = AdapterLoad(16, ("q_proj", "v_proj"), False, 1, 512, 512)
    found = pass_time(LLAMA_3_8B, MemorySetting("nf4", "fp16"), Pass((load,)), find_gpu("h200"))
    assert found.products == pytest.approx(0.031, rel=0.15)
    assert found.dequantization == pytest.approx(0.023, rel=0.15)


def test_packs_pay_where_rows_are_short():
    setting = MemorySetting("nf4", "fp16")
    pays = [
        adapters_that_pay(
            LLAMA_3_8B, setting, AdapterLoad(16, ("q_proj",), False, 1, tokens, tokens), find_gpu("t4"), 8192
        )
        for tokens in (64, 256, 1024, 8192)
    ]
    assert pays == sorted(pays, reverse=True)
    assert pays[-1] == 1
    assert pays[0] >= 16


@pytest.mark.parametrize(("name", "least", "most"), [("q_v", 0.166, 0.253), ("all_linear", 0.299, 0.441)])
def test_launches_decide_where_a_pass_is_short_as_was_measured(name, least, most):
    """Walls of one to eight packed adapters while the host was slower than an H100 (results/packed_step_h100.json)."""
    load = AdapterLoad(16, TARGET_SETS[name], False, 1, 128, 32)
    for adapters in (1, 2, 4, 8):
        found = pass_time(LLAMA_3_8B, MemorySetting("nf4", "fp16"), Pass((load,) * adapters), find_gpu("h100"))
        assert least < found.seconds == found.launches < most


def test_a_steps_time_is_that_of_its_passes_and_updates():
    """Passes are cut by what memory leaves beside the states; a pack costs what its passes do."""
    load, target = workload(gradient_accumulation_steps=1), cards("t4", count=1)
    one = fit(config(rank=16, targets="all_linear"), load, target)
    rows = rows_of_pass(one, 0.0, load)
    assert rows == one.room_bytes * one.load.tokens // (one.adapter_bytes - one.state_bytes) // 340
    update = update_seconds(load.shape, one.load, target.card)
    whole = step_seconds(one, 8, 0.0, load, target) - 8 * update
    crowded = one.room_bytes * (1 - 4.5 / rows)  # four rows are left for a pass
    assert rows_of_pass(one, crowded, load) == 4
    half = step_seconds(one, 4, 0.0, load, target) - 4 * update
    assert step_seconds(one, 8, crowded, load, target) - 8 * update == pytest.approx(2 * half)
    assert half < whole < 2 * half
    assert rows_of_pass(one, 2.0 * one.room_bytes, load) == 1


def test_a_phases_seconds_are_its_rounds():
    load, target = workload(gradient_accumulation_steps=1, max_steps=30), cards("h200", count=1)
    one = fit(config(), load, target)
    start = seconds_of_rounds(one, [], 0, 0.0, load, target)
    sixteen, fourteen, two = (seconds_of_rounds(one, [n], 0, 0.0, load, target) - start for n in (16, 14, 2))
    assert seconds_of_rounds(one, [14, 2], 0, 0.0, load, target) - start == pytest.approx(fourteen + two)
    assert sixteen < fourteen + two
    assert seconds_of_rounds(one, [], 3, 0.0, load, target) > start
