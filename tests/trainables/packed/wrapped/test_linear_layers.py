"""Which linear layers of a decoder adapters may update."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config

from tests.support.small_models import tiny_llama
from tests.support.trainables.small_decoders import adapter_over, small_decoder
from trainables.packed.adapter import PackedRows
from trainables.packed.packed_model import PackedModel


def leaves(model: PackedModel) -> set[str]:
    return {name.rsplit(".", 1)[-1] for name in model.linears}


def test_all_of_the_repeated_layers_and_nothing_beside_them() -> None:
    assert leaves(PackedModel(small_decoder("gpt_neox"))) == {
        "query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h",
    }  # fmt: skip
    opt = PackedModel(small_decoder("opt"))  # with a projection before its layers, and one after
    assert leaves(opt) == {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}
    assert all(".layers." in name for name in opt.linears)
    llama = tiny_llama()
    assert list(PackedModel(llama).linears) == [
        f"model.layers.{layer}.{block}_proj"
        for layer in range(2)
        for block in (*(f"self_attn.{one}" for one in "qkvo"), *(f"mlp.{one}" for one in ("gate", "up", "down")))
    ]


def test_neither_routers_nor_experts_but_what_experts_share() -> None:
    assert leaves(PackedModel(small_decoder("mixtral"))) == {"q_proj", "k_proj", "v_proj", "o_proj"}
    names = PackedModel(small_decoder("qwen2_moe")).linears
    assert {name for name in names if ".mlp." in name} == {
        f"model.layers.{layer}.mlp.shared_expert.{one}_proj" for layer in range(2) for one in ("gate", "up", "down")
    }


def test_a_decoder_of_other_layers_is_refused() -> None:
    config = GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=97, n_positions=64)  # of Conv1D
    with pytest.raises(ValueError, match="GPT2LMHeadModel has none"):
        PackedModel(AutoModelForCausalLM.from_config(config))


class TakesTheWeight(nn.Module):
    """An MLP that never calls its layer."""

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        self.up_proj = nn.Linear(32, 32)
        self.mlp = mlp

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp(nn.functional.linear(x, self.up_proj.weight))


class TurnsTokensToRows(nn.Module):
    """An MLP whose layer reads tokens x rows."""

    def __init__(self, mlp: Any) -> None:
        super().__init__()
        self.own = nn.Linear(32, 32)
        self.mlp = mlp

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mlp(self.own(x.transpose(0, 1)).transpose(0, 1))


@pytest.mark.parametrize("odd", [TakesTheWeight, TurnsTokensToRows])
def test_a_layer_that_is_not_called_with_the_batchs_rows_is_left_as_it_is(odd: Any) -> None:
    plain = tiny_llama()
    plain.model.layers[1].mlp = odd(plain.model.layers[1].mlp)
    model = PackedModel(plain, fused=False)
    assert not {name for name in model.linears if name.endswith(("1.mlp.up_proj", "1.mlp.own"))}
    assert all(type(one) is nn.Linear for one in plain.model.layers[1].mlp.children() if not hasattr(one, "gate_proj"))
    ids = torch.arange(8).view(2, 4)
    with model.rows_of([PackedRows(adapter_over(model), slice(0, 2))]) as causal:
        causal(input_ids=ids).logits.sum().backward()


def test_the_model_stays_in_the_mode_that_it_was_in() -> None:
    for training in (True, False):
        model = tiny_llama().train(training)
        PackedModel(model)
        assert all(module.training is training for module in model.modules())
