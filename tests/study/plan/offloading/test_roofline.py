"""The time of what comes over the bus: closed forms, and its limits."""

from __future__ import annotations

import dataclasses

import pytest

from study.hardware.gpu_catalogue import GpuCard, find_gpu
from study.plan.roofline import bus_bytes, pass_time, update_seconds
from tests.support.plan_cases import LLAMA_3_8B
from trainables.memory.offload import RESIDENT, Offload
from trainables.memory.setting import AdapterLoad, MemorySetting, Pass

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LAYER = 218_103_808 * 2  # bytes of a layer in 16 bits
LOAD = AdapterLoad(16, LINEAR, False, 1, 512, 512)
EIGHT = Pass((LOAD,) * 8)


def with_bus(name: str, rate: float | None) -> GpuCard:
    return dataclasses.replace(find_gpu(name), bus_bytes_per_second=rate)


def fp16(**parts: object) -> MemorySetting:
    return MemorySetting("fp16", "fp16", offload=Offload(**parts))


@pytest.mark.parametrize(
    "parts", [{"layers": 32}, {"layers": 20, "embedding": True}, {"layer_inputs": True}, {"optimizer_state": True}]
)
def test_an_infinite_bus_costs_nothing(parts):
    fast, setting = with_bus("t4", 1e30), fp16(**parts)
    resident = dataclasses.replace(setting, offload=RESIDENT)
    for training in (True, False):
        ours, theirs = (pass_time(LLAMA_3_8B, one, EIGHT, fast, training).seconds for one in (setting, resident))
        assert ours == theirs
    assert update_seconds(LLAMA_3_8B, LOAD, fast, setting) == pytest.approx(update_seconds(LLAMA_3_8B, LOAD, fast))


def test_a_layer_comes_twice_a_training_pass_but_for_those_at_the_turn():
    for layers in (0, 1, 3, 20, 32):
        trained, seen = (bus_bytes(LLAMA_3_8B, fp16(layers=layers), EIGHT, training) for training in (True, False))
        assert seen == layers * LAYER
        assert trained == (2 * layers - min(3, layers)) * LAYER


def test_inputs_come_back_once_and_an_embeddings_rows_once():
    row = 512 * 8 * 4096 * 2
    assert bus_bytes(LLAMA_3_8B, fp16(layer_inputs=True), EIGHT) == 29 * row
    assert bus_bytes(LLAMA_3_8B, fp16(layer_inputs=True), EIGHT, training=False) == 0
    assert bus_bytes(LLAMA_3_8B, fp16(embedding=True), EIGHT) == row


def test_moments_come_and_go_with_an_update():
    card, numbers = with_bus("t4", 12e9), LOAD.parameters(LLAMA_3_8B)
    plain = update_seconds(LLAMA_3_8B, LOAD, card)
    assert update_seconds(LLAMA_3_8B, LOAD, card, fp16(optimizer_state=True)) == plain + 16 * numbers / 12e9
    eight_bit = dataclasses.replace(fp16(optimizer_state=True), optimizer="adamw_8bit")
    moved = update_seconds(LLAMA_3_8B, LOAD, card, eight_bit) - plain
    assert moved == pytest.approx(4 * numbers / 12e9, rel=0.02)  # and an fp32 scale for each 256


def test_a_pass_takes_as_long_as_the_slowest_and_larger_ones_hide_the_bus():
    card = find_gpu("t4")
    alone, pack = (pass_time(LLAMA_3_8B, fp16(layers=32), Pass((LOAD,) * count), card) for count in (1, 8))
    assert alone.seconds == alone.transfer == pytest.approx(61 * LAYER / 12e9)
    assert pack.seconds == pack.busy > pack.transfer


def test_what_was_measured_of_the_h200():
    """8 x 512 tokens, all layers streamed: 544 to 547 ms in fp16, within 5 %; in NF4 no longer than resident."""
    half, four_bit = (MemorySetting(name, "fp16", offload=Offload(32)) for name in ("fp16", "nf4"))
    found = pass_time(LLAMA_3_8B, half, EIGHT, find_gpu("h200"))
    assert found.seconds == found.transfer == pytest.approx(0.545, rel=0.05)
    hidden = pass_time(LLAMA_3_8B, four_bit, EIGHT, find_gpu("h200"))
    assert hidden.transfer < hidden.seconds


def test_without_a_bus_that_is_known_no_time_is():
    with pytest.raises(ValueError, match=r"the bus of NVIDIA T4 must be known"):
        pass_time(LLAMA_3_8B, fp16(layers=1), EIGHT, with_bus("t4", None))
    assert pass_time(LLAMA_3_8B, fp16(), EIGHT, with_bus("t4", None)).transfer == 0
