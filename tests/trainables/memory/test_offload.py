"""What waits in host memory is not on the card: by how much less it needs, and that packs are still bounded."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.trainables.memory_cases import ALL_LINEAR, GIB, LLAMA_3, MIB, NF4, Q_V, SHAPES
from trainables.memory.card_split import predict_split, split_layers
from trainables.memory.host_memory import host_components
from trainables.memory.offload import Offload
from trainables.memory.prediction import (
    GENERATION,
    MemoryPrediction,
    adapter_bytes,
    allocatable,
    base_bytes,
    predict,
    predict_pack,
    room,
)
from trainables.memory.setting import AdapterLoad, MemoryConstants, MemorySetting

OFFLOADS = st.builds(Offload, st.integers(0, 33), st.booleans(), st.booleans(), st.booleans())
LOADS = st.builds(
    AdapterLoad, st.integers(1, 300), st.sampled_from([Q_V, ALL_LINEAR]), st.booleans(), st.just(2), st.just(700),
    st.just(900),
)  # fmt: skip
BUFFERS = 64 * MIB + 32 * 1024  # for moments, and what pads blocks


@given(
    shape=st.sampled_from(list(SHAPES.values())),
    loads=st.lists(LOADS, min_size=1, max_size=5),
    offload=OFFLOADS,
    checkpointing=st.booleans(),
    optimizer=st.sampled_from(["adamw", "adamw_8bit"]),
)
@settings(max_examples=60, deadline=None)
def test_a_pack_never_needs_more_than_base_and_each_adapters_own(shape, loads, offload, checkpointing, optimizer):
    setting = MemorySetting("nf4", "fp16", gradient_checkpointing=checkpointing, offload=offload, optimizer=optimizer)
    constants = MemoryConstants(400 * MIB, 70 * MIB)
    pack = predict_pack(shape, setting, loads, constants)
    own = [adapter_bytes(shape, setting, load, constants) for load in loads]
    assert pack.needed_bytes <= base_bytes(shape, setting, constants) + sum(own)
    if sum(own) <= room(shape, setting, 80 * GIB, constants):
        assert pack.needed_bytes <= allocatable(shape, setting, 80 * GIB, constants)
        assert pack.device_bytes <= 80 * GIB + len(loads)


@given(
    shape=st.sampled_from(list(SHAPES.values())),
    loads=st.lists(LOADS, min_size=1, max_size=4),
    offload=OFFLOADS,
    more=st.sampled_from(["layers", "embedding", "optimizer_state", "layer_inputs"]),
    checkpointing=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_each_offload_needs_less_by_what_goes_to_host_memory(shape, loads, offload, more, checkpointing):
    """Never more, but for the buffers; and never less than by what host memory has instead."""
    before = MemorySetting("nf4", "fp16", gradient_checkpointing=checkpointing, offload=replace(offload, **{more: 0}))
    after = replace(before, offload=replace(offload, **{more: offload.layers if more == "layers" else True}))
    there, gone = (predict_pack(shape, one, loads).needed_bytes for one in (before, after))
    host = [sum(host_components(shape, one, loads).values()) for one in (before, after)]
    assert gone <= there + BUFFERS
    assert there - gone <= host[1] - host[0]


@pytest.mark.parametrize("layers", [1, 3, 32])
def test_of_layers_inputs_three_stay(layers):
    load = AdapterLoad(16, Q_V, False, 1, 4096, 100, layers=layers)
    away = replace(NF4, offload=Offload(layer_inputs=True))
    components = predict(LLAMA_3, away, load).components
    assert components["layer_inputs"] == min(layers, 3) * 4096 * 4096 * 2
    without = replace(away, gradient_checkpointing=False)
    assert predict(LLAMA_3, without, load).components["layer_inputs"] == layers * 4096 * 4096 * 2


def test_components_name_buffers_and_sum_to_the_peak():
    everything = replace(NF4, offload=Offload(32, True, True, True))
    found = predict(LLAMA_3, everything, AdapterLoad(16, ALL_LINEAR, True, 2, 512, 256))
    assert sum(found.components.values()) == found.peak_memory_bytes
    assert found.components["stream_buffers"] > 300 * MIB
    assert found.components["optimizer_staging"] == 64 * MIB
    assert found.components["optimizer_state"] == 0


def test_a_base_larger_than_the_card_fits_by_its_layers():
    """Llama-3-8B in fp16 on one T4; and of rank 256 at all linear layers in NF4, under 14.56 GiB."""
    load, card = AdapterLoad(16, ALL_LINEAR, False, 1, 512, 256), 14.56 * GIB
    fp16 = MemorySetting("fp16", "fp16", attention="memory_efficient")
    assert predict(LLAMA_3, fp16, load).device_bytes > card
    assert predict(LLAMA_3, replace(fp16, offload=Offload(32)), load).device_bytes < 6 * GIB
    high = replace(load, rank=256)
    nf4 = replace(fp16, precision="nf4")
    assert predict(LLAMA_3, nf4, high).device_bytes > card
    for help_ in (Offload(32), Offload(optimizer_state=True)):
        assert predict(LLAMA_3, replace(nf4, offload=help_), high).device_bytes < card
    assert predict(LLAMA_3, replace(nf4, optimizer="adamw_8bit"), high).device_bytes < card


def test_several_cards_are_split_as_if_all_were_resident():
    load = AdapterLoad(16, ALL_LINEAR, False, 1, 512, 256)
    own = MemorySetting("fp16", "fp16", offload=Offload(32, True, True, True))
    assert split_layers(LLAMA_3, own, 1, 512, 2) == split_layers(LLAMA_3, MemorySetting("fp16", "fp16"), 1, 512, 2)
    for one in predict_split(LLAMA_3, own, load, 2):
        assert one.components["stream_buffers"] == predict(LLAMA_3, own, load).components["stream_buffers"]


@given(offload=OFFLOADS, load=LOADS)
@settings(max_examples=20, deadline=None)
def test_on_a_processor_nothing_leaves_and_buffers_come_on_top(offload, load):
    setting = MemorySetting("nf4", "fp32", device="cpu", attention="cpu")
    there, away = (predict(LLAMA_3, one, load).components for one in (setting, replace(setting, offload=offload)))
    assert {**away, "stream_buffers": 0, "optimizer_staging": 0} == dict(there)


def largest(prediction: MemoryPrediction) -> str:
    moment = prediction.largest_moment[1]
    return max(moment, key=lambda name: moment[name])


@pytest.mark.parametrize(
    "setting", [MemorySetting("nf4", "bf16"), replace(NF4, attention="memory_efficient")], ids=["bf16", "as on a T4"]
)
def test_forty_thousand_tokens_fit_a_t4_with_layers_and_their_inputs_away(setting):
    """Inputs alone are not enough: then the layers' own activations are most, and a whole row's keys and values."""
    load, away = AdapterLoad(32, ALL_LINEAR, False, 1, 40_000, 20_000), Offload(layer_inputs=True)
    resident, inputs, both = (
        predict(LLAMA_3, replace(setting, offload=one), load) for one in (Offload(), away, replace(away, layers=32))
    )
    assert resident.device_bytes > inputs.device_bytes > 14.56 * GIB > both.device_bytes
    assert largest(resident) == "layer_inputs"
    assert both.largest_moment[0] == GENERATION
    components = both.components
    assert max(components, key=lambda name: components[name]) == "activations"
    left = resident.components["layer_inputs"] - inputs.components["layer_inputs"]
    assert left == 29 * 40_000 * 4096 * 2
