"""Bytes of layers that are streamed: against real blocks, and what leaves the card against what stays."""

from dataclasses import replace

import bitsandbytes
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.support.trainables.memory_cases import CONFIGS, FP16, LLAMA_3, NF4, SHAPES, weight_bytes
from trainables.base_model.checks.quantization import FourBit
from trainables.base_model.shape import ModelShape
from trainables.base_model.streaming.layer_block import LayerBlock
from trainables.memory.frozen_linears import NF4_TABLES_BYTES, block_bytes, stream_buffer_bytes, streamed_among
from trainables.memory.offload import STREAM_BUFFERS, Offload, streamed_layers
from trainables.memory.setting import MemorySetting
from trainables.memory.weights import ModelPart, base_components

CPU = torch.device("cpu")
PADDED = 512 * 7 * 3 * STREAM_BUFFERS  # at most, of three tensors of each of seven linear layers
SMALL = ModelShape.from_config({
    "model_type": "llama", "hidden_size": 96, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 20, "vocab_size": 64, "tie_word_embeddings": False,
})  # fmt: skip


def layer(double_quantization: bool, skipped: str | None) -> nn.Module:
    """A layer of the small shape in NF4; one linear layer may be left in 16 bits."""
    linears = nn.ModuleDict()
    for name, (inward, outward) in SMALL.linears.items():
        linears[name] = nn.Linear(inward, outward, bias=False, dtype=torch.bfloat16)
        if name != skipped:
            linears[name] = bitsandbytes.nn.Linear4bit(inward, outward, bias=False, quant_type="nf4")
            linears[name].weight = bitsandbytes.nn.Params4bit(
                torch.randn(outward, inward), quant_type="nf4", compress_statistics=double_quantization
            ).to(CPU)
    return linears


@pytest.mark.parametrize("double_quantization", [True, False])
@pytest.mark.parametrize("skipped", [None, "o_proj"])
def test_a_block_has_the_bytes_of_a_real_one(double_quantization, skipped):
    found = LayerBlock(layer(double_quantization, skipped), CPU, pinned=False)
    left = ("model.layers.1.self_attn.o_proj",) if skipped else ()
    shape = replace(SMALL, four_bit=FourBit(double_quantization, left))
    setting = MemorySetting("nf4", "bf16", double_quantization)
    assert block_bytes(shape, setting, 1) == found.nbytes
    assert (block_bytes(shape, setting, 0) == found.nbytes) == (skipped is None)


@given(
    shape=st.sampled_from(list(SHAPES.values())),
    setting=st.sampled_from([NF4, FP16, replace(NF4, double_quantization=False)]),
    count=st.integers(0, 40),
    embedding=st.booleans(),
)
def test_what_leaves_the_card_is_what_its_layers_had(shape, setting, count, embedding):
    """But tables; and buffers, each as large as a block, come instead."""
    streamed = min(count, shape.layers)
    own = replace(setting, offload=Offload(count, embedding))
    whole, left = (base_components(shape, one, ModelPart(shape.layers)) for one in (setting, own))
    tables = NF4_TABLES_BYTES * len(shape.linears) if setting.precision == "nf4" else 0
    of_layer = whole["base_linears"] // shape.layers
    assert left["base_linears"] == whole["base_linears"] - streamed * (of_layer - tables)
    assert left["stream_buffers"] == min(streamed, STREAM_BUFFERS) * block_bytes(shape, own, 0)
    moved = embedding and not shape.tie_word_embeddings
    table = shape.embedding_parameters * setting.weight_bytes
    assert left["embedding_and_head"] == whole["embedding_and_head"] - (table if moved else 0)
    assert left["norms"] == whole["norms"]
    assert weight_bytes(shape, own) <= weight_bytes(shape, setting) + PADDED


def test_a_layer_that_was_left_in_16_bits_makes_the_buffers_as_large():
    shape = replace(LLAMA_3, four_bit=FourBit(True, ("model.layers.31.mlp.up_proj",)))
    setting = replace(NF4, offload=Offload(32))
    assert stream_buffer_bytes(shape, setting, range(31)) == 3 * block_bytes(LLAMA_3, setting, 0)
    assert stream_buffer_bytes(shape, setting, range(32)) == 3 * block_bytes(shape, setting, 31)
    assert block_bytes(shape, setting, 31) > block_bytes(shape, setting, 0) + 80 * 2**20
    left = base_components(shape, setting, ModelPart(32))["base_linears"]
    assert left == NF4_TABLES_BYTES * (7 * 32 - 1)


@pytest.mark.parametrize("count", [1, 5, 9])
def test_several_cards_share_the_streamed_layers(count):
    """Each part has its own of them, and buffers for these alone."""
    shape = ModelShape.from_config({**CONFIGS["llama-3-8b"], "num_hidden_layers": 9})
    setting = replace(FP16, offload=Offload(count))
    parts = [ModelPart(2, has_head=False, above=7), ModelPart(7, has_embedding=False)]
    among = [streamed_among(shape, setting, part.range_in(shape)) for part in parts]
    assert sum(among, ()) == streamed_layers(count, 9)
    found = [base_components(shape, setting, part) for part in parts]
    assert sum(one["base_linears"] for one in found) == base_components(shape, setting, ModelPart(9))["base_linears"]
    for one, own in zip(found, among, strict=True):
        assert one["stream_buffers"] == min(len(own), STREAM_BUFFERS) * block_bytes(shape, setting, 0)
