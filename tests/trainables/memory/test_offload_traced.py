"""What waits in host memory, against the bytes of every tensor that a small model's training really has."""

from dataclasses import replace

import pytest
import torch

from tests.support.trainables.memory_cases import ALL_LINEAR
from tests.support.trainables.memory_trace import allocate_as_a_card, traced_peak
from tests.trainables.memory.test_fused_layers import WIDE_MLP, build, card_setting, predicted_peak
from trainables.base_model.streaming.layer_block import LayerBlock
from trainables.base_model.streaming.layer_stream import LayerStreams
from trainables.memory.frozen_linears import stream_buffer_bytes
from trainables.memory.host_memory import host_components
from trainables.memory.offload import Offload, streamed_layers
from trainables.memory.optimizer_states import moment_bytes, staging_bytes
from trainables.memory.setting import AdapterLoad
from trainables.memory.weights import ModelPart, base_components
from trainables.packed.layer_inputs.layer_inputs import LayerInputsInHostMemory
from trainables.packed.optimizers.choice import optimizer_state
from trainables.packed.optimizers.staging import Staging

CPU = torch.device("cpu")


@pytest.mark.parametrize("layers", [2, 3, 8])
def test_layers_inputs_leave_but_three(monkeypatch, layers):
    """Within 1 %; what is in host memory is traced too, in blocks as a card's host has them."""
    allocate_as_a_card(monkeypatch)
    model, shape = build(WIDE_MLP, torch.bfloat16, True, layers=layers)
    model.layer_inputs = LayerInputsInHostMemory(smallest_bytes=1)
    loads = [AdapterLoad(8, ALL_LINEAR, False, rows=2, tokens=48, targets=32)]
    setting = replace(card_setting(True), offload=Offload(layer_inputs=True))
    on_card = traced_peak(model, loads) - host_components(shape, setting, loads)["layer_inputs"]
    assert predicted_peak(shape, setting, loads) == pytest.approx(on_card, rel=0.01)


@pytest.mark.parametrize("count", [0, 1, 4, 6])
def test_of_streamed_layers_buffers_are_there(count):
    model, shape = build(WIDE_MLP, torch.bfloat16, True, layers=6)
    setting = replace(card_setting(True), offload=Offload(count))
    modules = model.model.get_decoder().layers
    blocks = {number: LayerBlock(modules[number], CPU, pinned=False) for number in streamed_layers(count, 6)}
    assert stream_buffer_bytes(shape, setting, range(6)) == LayerStreams(blocks).buffer_bytes
    own = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.model.parameters()}
    left = base_components(shape, setting, ModelPart(6))
    stand_ins = 2 * 7 * count
    assert sum(left.values()) - left["stream_buffers"] == sum(own.values()) - stand_ins
    assert host_components(shape, setting, [])["streamed_layers"] == sum(block.nbytes for block in blocks.values())


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit"])
def test_moments_in_host_memory_and_their_staging(name):
    """But step counters, and the two maps of 8 bits that all adapters share."""
    _, shape = build(WIDE_MLP, torch.bfloat16, True)
    load = AdapterLoad(40, ALL_LINEAR, False, 1, 16, 16)
    setting = replace(card_setting(True), offload=Offload(optimizer_state=True), optimizer=name)
    sizes = [size for inward, outward in shape.linears.values() for size in (inward, outward)] * shape.layers
    parameters = [torch.zeros(load.rank * size) for size in sizes]
    staging = Staging(devices=[CPU])
    kept = optimizer_state(name, parameters, False, staging)
    kept.prepare([CPU] * len(parameters))
    of_all = sum(value.nbytes for state in kept.state.values() for key, value in state.items() if key != "step")
    maps = 2048 if name == "adamw_8bit" else 0
    assert moment_bytes(shape, setting, load, shape.layers) == of_all + maps
    assert staging_bytes(shape, setting, [load]) == 2 * staging.staged_bytes
