"""Predicted seconds: closed forms of the roofline, and what was measured (within 15 %)."""

import dataclasses

import pytest

from study.hardware.gpu_catalogue import find_gpu
from study.plan.time_model import adapters_that_pay, pass_time, total_steps
from tests.support.plan_cases import LLAMA_3_8B, workload
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
