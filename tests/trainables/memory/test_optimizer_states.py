"""Bytes of optimizer states: against bitsandbytes' own tensors, and the staging of those that wait in host memory."""

from dataclasses import replace

import pytest
import torch
from bitsandbytes.optim import AdamW8bit
from torch import nn

from tests.support.trainables.memory_cases import ALL_LINEAR, GIB, LLAMA_3, MIB, NF4, Q_V
from trainables.base_model.shape import ModelShape
from trainables.memory.offload import STAGED_STATE_BYTES, Offload
from trainables.memory.optimizer_states import QUANTILE_MAPS_BYTES, moment_bytes, staging_bytes
from trainables.memory.setting import AdapterLoad
from trainables.memory.weights import ModelPart, state_components

EIGHT_BIT = replace(NF4, optimizer="adamw_8bit")
MIXED = ModelShape.from_config({  # with rank 8 some tensors stay in fp32, and one ends in a part of a block
    "model_type": "llama", "hidden_size": 500, "intermediate_size": 600, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 130, "vocab_size": 64,
})  # fmt: skip


@pytest.mark.parametrize("rank", [1, 8, 9])
def test_moments_in_8_bits_are_those_of_bitsandbytes(rank):
    load = AdapterLoad(rank, ALL_LINEAR, False, 1, 16, 16)
    numbers = [rank * width for size in MIXED.linears.values() for width in size] * MIXED.layers
    assert {count >= 4096 for count in numbers} == ({True, False} if rank == 8 else {rank == 9})
    optimizer = AdamW8bit([nn.Parameter(torch.zeros(count)) for count in numbers])
    (group,) = optimizer.param_groups
    for place, parameter in enumerate(group["params"]):
        optimizer.init_state(group, parameter, 0, place)
    kept = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    assert moment_bytes(MIXED, EIGHT_BIT, load, MIXED.layers) == sum({id(one): one.nbytes for one in kept}.values())


def test_8_bits_take_about_a_quarter_and_fp32_8_bytes_a_number():
    load = AdapterLoad(256, ALL_LINEAR, False, 1, 512, 512)
    assert moment_bytes(LLAMA_3, NF4, load, 32) == 8 * load.parameters(LLAMA_3) == 5 * GIB
    assert moment_bytes(LLAMA_3, EIGHT_BIT, load, 32) == 5 * GIB // 4 * (1 + 1 / 64) + QUANTILE_MAPS_BYTES
    assert moment_bytes(LLAMA_3, EIGHT_BIT, load, 0) == 0


def test_staging_is_two_buffers_that_one_parameters_moments_make_larger():
    few, many = (AdapterLoad(rank, Q_V, False, 1, 512, 512) for rank in (8, 2048))
    away = replace(NF4, offload=Offload(optimizer_state=True))
    assert staging_bytes(LLAMA_3, NF4, [many]) == 0
    assert staging_bytes(LLAMA_3, away, []) == staging_bytes(LLAMA_3, away, [few] * 9) == 2 * STAGED_STATE_BYTES
    assert staging_bytes(LLAMA_3, away, [few, many]) == 2 * 8 * 2048 * 4096
    in_8_bits = replace(away, optimizer="adamw_8bit")
    assert staging_bytes(LLAMA_3, in_8_bits, [few, many]) == 2 * STAGED_STATE_BYTES == 64 * MIB


def test_moments_in_host_memory_are_no_component_of_a_card():
    loads = [AdapterLoad(rank, ALL_LINEAR, False, 1, 512, 512) for rank in (16, 64)]
    away = replace(NF4, offload=Offload(optimizer_state=True))
    there, gone = (state_components(LLAMA_3, loads, ModelPart(32), one) for one in (NF4, away))
    assert gone == {**there, "optimizer_state": 0}
    assert state_components(LLAMA_3, loads, ModelPart(32), replace(away, device="cpu")) == there
    assert state_components(LLAMA_3, loads, ModelPart(32)) == there
