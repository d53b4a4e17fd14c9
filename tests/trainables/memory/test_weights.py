"""Bytes of frozen weights and states: known figures, and every byte of NF4."""

from dataclasses import replace

import bitsandbytes
import pytest
import torch

from tests.support.trainables.memory_cases import ALL_LINEAR, FP16, GIB, LLAMA_3, MIB, NF4, Q_V, weight_bytes
from trainables.base_model.shape import ModelShape
from trainables.limits import FP32_BYTES
from trainables.memory.frozen_linears import NF4_TABLES_BYTES, linear_bytes
from trainables.memory.prediction import predict
from trainables.memory.setting import AdapterLoad, MemorySetting, Pass
from trainables.memory.weights import ModelPart, state_components


def states(shape: ModelShape, load: AdapterLoad) -> int:
    components = predict(shape, NF4, load).components
    return sum(components[name] for name in ("adapter_weights", "gradients", "optimizer_state"))


def test_measured_bytes_of_llama_3_8b():
    """Measured on an H200: the NF4 base 5.32 GiB; 16 bits 14.96 GiB; adapters with gradients and AdamW 640 and 104
    MiB."""
    assert weight_bytes(LLAMA_3, NF4) == pytest.approx(5.32 * GIB, rel=0.01)
    assert weight_bytes(LLAMA_3, FP16) == pytest.approx(14.96 * GIB, rel=0.001)
    assert states(LLAMA_3, AdapterLoad(16, ALL_LINEAR, False, 1, 512, 512)) == 640 * MIB
    assert states(LLAMA_3, AdapterLoad(16, Q_V, False, 1, 512, 512)) == 104 * MIB


@pytest.mark.parametrize(("inward", "outward"), [(64, 64), (256, 512), (96, 40), (1024, 257)])
@pytest.mark.parametrize("double_quantization", [True, False])
def test_nf4_is_counted_to_the_byte(inward, outward, double_quantization):
    """Against bitsandbytes' own tensors; only the small tables are counted as a card allocates them."""
    weight = torch.randn(outward, inward, generator=torch.Generator().manual_seed(0))
    packed, state = bitsandbytes.functional.quantize_4bit(
        weight, quant_type="nf4", compress_statistics=double_quantization
    )
    there = packed.nbytes + state.absmax.nbytes + (state.state2.absmax.nbytes if double_quantization else 0)
    setting = MemorySetting("nf4", "fp32", double_quantization=double_quantization)
    assert linear_bytes(weight.numel(), setting) - NF4_TABLES_BYTES == there


def test_adapters_of_some_layers_have_states_there_alone():
    """Half of the layers: half of the numbers, all on the card that holds the upper half."""
    load = AdapterLoad(16, ALL_LINEAR, False, 1, 512, 512, layers=16)
    assert states(LLAMA_3, load) == 320 * MIB == 4 * FP32_BYTES * load.parameters(LLAMA_3)
    lower, upper = ModelPart(16, has_head=False, above=16), ModelPart(16, has_embedding=False)
    assert [part.adapted(load) for part in (lower, upper)] == [0, 16]
    assert [part.adapted(replace(load, layers=8, reach=20)) for part in (lower, upper)] == [4, 4]
    assert sum(state_components(LLAMA_3, [load], lower).values()) == 0
    assert lower.reached(Pass((load,))) == 0
