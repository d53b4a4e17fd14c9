"""The memory model: sums, bounds, and what grows with what."""

import dataclasses
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.trainables.memory_cases import ALL_LINEAR, FP16, GIB, LLAMA_3, MIB, NF4, Q_V, SHAPES
from trainables.memory.prediction import adapter_bytes, allocatable, base_bytes, predict, predict_pack, room
from trainables.memory.setting import AdapterLoad, MemoryConstants, MemorySetting


@given(
    shape=st.sampled_from(list(SHAPES.values())),
    precision=st.sampled_from(["nf4", "fp16", "fp32"]),
    checkpointing=st.booleans(),
    targets=st.lists(st.sampled_from([Q_V, ALL_LINEAR, ("down_proj",)]), min_size=1, max_size=8),
    rank=st.integers(1, 256),
    rows=st.integers(1, 4),
    tokens=st.integers(1, 2048),
    factor=st.floats(0.5, 2.0),
)
@settings(max_examples=60, deadline=None)
def test_a_pack_never_needs_more_than_base_and_each_adapters_own(
    shape, precision, checkpointing, targets, rank, rows, tokens, factor
):
    setting = MemorySetting(precision, "fp32" if precision == "fp32" else "fp16", gradient_checkpointing=checkpointing)
    constants = MemoryConstants(400 * MIB, 70 * MIB, factor, 1.03)
    loads = [
        AdapterLoad(rank + 3 * place, own, place % 2 == 0, rows, tokens, rows * tokens)
        for place, own in enumerate(targets)
    ]
    pack = predict_pack(shape, setting, loads, constants)
    own = [adapter_bytes(shape, setting, load, constants) for load in loads]
    assert pack.needed_bytes <= base_bytes(shape, setting, constants) + sum(own)
    assert pack.needed_bytes >= max(predict(shape, setting, load, constants).needed_bytes for load in loads)
    card = allocatable(shape, setting, 80 * GIB, constants)
    if sum(own) <= room(shape, setting, 80 * GIB, constants):
        assert pack.needed_bytes <= card
        assert pack.device_bytes <= 80 * GIB + len(loads)


def test_components_are_named_and_sum_to_the_peak():
    prediction = predict(LLAMA_3, NF4, AdapterLoad(16, ALL_LINEAR, True, 2, 512, 256))
    assert sum(prediction.components.values()) == prediction.peak_memory_bytes
    assert all(size >= 0 for size in prediction.components.values())
    assert {"base_linears", "embedding_and_head", "gradients", "layer_inputs", "dequantization"} <= set(
        prediction.components
    )
    assert (
        prediction.peak_memory_bytes <= prediction.needed_bytes <= prediction.reserved_bytes < prediction.device_bytes
    )


@pytest.mark.parametrize("setting", [NF4, FP16, MemorySetting("nf4", "fp16", gradient_checkpointing=False)])
def test_more_of_anything_needs_more(setting):
    load = AdapterLoad(16, Q_V, False, 2, 512, 512)
    least = predict(LLAMA_3, setting, load).peak_memory_bytes
    for changes in ({"rank": 17}, {"target_modules": ALL_LINEAR}, {"rows": 3}, {"tokens": 513}):
        assert predict(LLAMA_3, setting, dataclasses.replace(load, **changes)).peak_memory_bytes > least
    dropout = dataclasses.replace(load, dropout=True)
    assert predict(LLAMA_3, setting, dropout).peak_memory_bytes >= least


def test_checkpointing_keeps_inputs_alone():
    load = AdapterLoad(16, Q_V, False, 4, 1024, 1024)
    with_it, without = (
        predict(LLAMA_3, MemorySetting("nf4", "fp16", gradient_checkpointing=on), load) for on in (1, 0)
    )
    assert with_it.components["layer_inputs"] == without.components["layer_inputs"] == 32 * 4 * 1024 * 4096 * 2
    assert without.components["activations"] > 20 * with_it.components["activations"]


def test_only_plain_mathematics_needs_scores_of_all_pairs():
    short, long = AdapterLoad(16, Q_V, False, 1, 1024, 128), AdapterLoad(16, Q_V, False, 1, 4096, 128)
    for shape in (LLAMA_3, SHAPES["mistral-7b"]):
        growth = {}
        for attention in ("flash", "memory_efficient", "math"):
            setting = MemorySetting("fp16", "fp16", attention=attention)
            least, most = (predict(shape, setting, load).components["activations"] for load in (short, long))
            growth[attention] = most / least
        assert growth["flash"] == pytest.approx(4, rel=0.01)
        assert growth["memory_efficient"] == pytest.approx(4, rel=0.06)  # its staged tiles do not grow
        assert growth["math"] > 10


def test_a_prediction_takes_no_time():
    start = time.process_time()
    for _ in range(20):
        predict(LLAMA_3, NF4, AdapterLoad(16, ALL_LINEAR, True, 2, 512, 256))
    assert (time.process_time() - start) / 20 < 0.1
