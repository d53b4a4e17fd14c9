"""Bytes of host memory for what waits there: closed forms, and what torch takes for the pinned rows of an embedding."""

from dataclasses import replace

from tests.support.trainables.memory_cases import ALL_LINEAR, GIB, LLAMA_3, MIB, NF4, Q_V, SHAPES
from trainables.memory.frozen_linears import block_bytes
from trainables.memory.host_memory import host_bytes, host_components, pinned_bytes
from trainables.memory.offload import RESIDENT, Offload
from trainables.memory.setting import AdapterLoad

LOADS = [AdapterLoad(16, ALL_LINEAR, False, 1, 512, 100), AdapterLoad(16, Q_V, False, 1, 512, 100)]


def test_each_kind_by_itself():
    kinds = {
        "streamed_layers": Offload(layers=8),
        "embedding": Offload(embedding=True),
        "optimizer_state": Offload(optimizer_state=True),
        "layer_inputs": Offload(layer_inputs=True),
    }
    bytes_of = {
        "streamed_layers": 8 * block_bytes(LLAMA_3, NF4, 0),
        "embedding": 2 * 128256 * 4096 + 2 * 512 * 4096 * 2,
        "optimizer_state": (320 + 52) * MIB,
        "layer_inputs": 32 * 2 * 512 * 4096 * 2,
    }
    for name, offload in kinds.items():
        found = host_components(LLAMA_3, replace(NF4, offload=offload), LOADS)
        assert {own: size for own, size in found.items() if size} == {name: bytes_of[name]}
    assert host_bytes(LLAMA_3, replace(NF4, offload=Offload(8, True, True, True)), LOADS) == sum(bytes_of.values())
    assert host_bytes(LLAMA_3, replace(NF4, offload=RESIDENT), LOADS) == 0


def test_what_has_nothing_to_move_needs_nothing():
    """A tied embedding; layers' inputs without checkpointing, and of adapters in the upper layers those alone."""
    tied = replace(NF4, offload=Offload(embedding=True))
    assert host_bytes(SHAPES["llama-3.2-1b"], tied, LOADS) == 0
    inputs = replace(NF4, offload=Offload(layer_inputs=True))
    assert host_bytes(LLAMA_3, replace(inputs, gradient_checkpointing=False), LOADS) == 0
    upper = [replace(load, layers=8) for load in LOADS]
    assert host_bytes(LLAMA_3, inputs, LOADS) == 32 * 2 * 512 * 4096 * 2
    assert host_bytes(LLAMA_3, inputs, upper) == 8 * 2 * 512 * 4096 * 2


def test_pinned_tensors_take_a_power_of_two():
    sizes = (0, 1, 2, 3, 4096, 4097, 13 * GIB)
    assert [pinned_bytes(size) for size in sizes] == [0, 1, 2, 4, 4096, 8192, 16 * GIB]
    odd = [AdapterLoad(16, Q_V, False, 1, 300, 100)]
    on_card, on_cpu = (replace(NF4, offload=Offload(embedding=True), device=device) for device in ("cuda", "cpu"))
    assert host_bytes(LLAMA_3, on_card, odd) - host_bytes(LLAMA_3, on_cpu, odd) == (512 - 300) * 4096 * 2


def test_layers_inputs_take_what_they_are():
    """One row of 40,000 tokens: 32 layers' inputs of 312.5 MiB each."""
    long, inputs = [AdapterLoad(16, Q_V, False, 1, 40_000, 100)], replace(NF4, offload=Offload(layer_inputs=True))
    assert host_bytes(LLAMA_3, inputs, long) == 32 * 40_000 * 4096 * 2 == 10_000 * MIB
