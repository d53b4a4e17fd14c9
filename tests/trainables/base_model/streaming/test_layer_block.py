"""A layer's weights in one block of host memory: what is shown is what was there, what is hidden computes nothing."""

from __future__ import annotations

import bitsandbytes
import pytest
import torch
from torch import nn

from trainables.base_model.streaming.layer_block import LayerBlock
from trainables.limits import ALIGNED_BYTES
from trainables.memory.offload import Offload, streamed_layers

CPU = torch.device("cpu")


def a_layer(precision: str) -> nn.Module:
    if precision == "nf4":
        layers = [bitsandbytes.nn.Linear4bit(64, 96, quant_type="nf4", compress_statistics=True) for _ in range(2)]
        return nn.ModuleList(layers).to("cpu").requires_grad_(False)
    return nn.ModuleList([nn.Linear(64, 96), nn.Linear(64, 32, bias=False)]).requires_grad_(False)


@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_a_shown_layer_computes_what_it_did_and_a_hidden_one_nothing(precision: str) -> None:
    layer, x = a_layer(precision), torch.randn(3, 64)
    before = [linear(x) for linear in layer]
    block = LayerBlock(layer, CPU, pinned=False)
    assert block.nbytes % ALIGNED_BYTES == 0
    assert all(linear(x).isnan().all() for linear in layer), "a hidden layer's products must not look like numbers"
    buffer = torch.empty(block.nbytes + 1024, dtype=torch.uint8)
    block.copy_to(buffer)
    block.show_in(buffer)
    assert all(torch.equal(linear(x), was) for linear, was in zip(layer, before, strict=True))  # tolerance: none
    block.hide()
    assert all(linear(x).isnan().all() for linear in layer)
    assert all(linear.weight.untyped_storage().nbytes() <= 4 for linear in layer)  # a stand-in's one number


@pytest.mark.parametrize("layers", [1, 2, 7, 32])
def test_streamed_layers_are_as_many_as_asked_and_spread_evenly(layers: int) -> None:
    for count in range(layers + 1):
        chosen = streamed_layers(count, layers)
        assert len(chosen) == count
        resident_runs = [b - a - 1 for a, b in zip((-1, *chosen), chosen, strict=False)]
        assert not resident_runs or max(resident_runs) <= -(-layers // count) - 1 + 1


def test_the_default_is_resident() -> None:
    assert Offload().is_none
    assert not Offload().streams
    assert Offload(embedding=True).streams


def test_what_waits_is_worded_in_one_order() -> None:
    assert Offload().words == ""
    assert Offload(layers=1).words == "1 layer"
    everything = Offload(layers=32, embedding=True, optimizer_state=True, layer_inputs=True)
    assert everything.words == "32 layers, embedding, moments and layer inputs"
