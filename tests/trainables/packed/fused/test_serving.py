"""Which models the fused decoder computes: those whose every part is of their family's form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from tests.support.trainables.tiny_families import CASES, SIZES, tiny_family
from trainables.base_model.families import COMPUTED_ACTIVATIONS
from trainables.packed.fused.form import ACTIVATIONS
from trainables.packed.fused.serving import serves


def linears_of(model: Any) -> dict[str, nn.Linear]:
    named = model.get_decoder().named_modules(prefix="model")
    return {name: module for name, module in named if isinstance(module, nn.Linear)}


def test_what_plans_take_for_computed_is() -> None:
    assert tuple(ACTIVATIONS) == COMPUTED_ACTIVATIONS


@pytest.mark.parametrize("case", CASES)
def test_every_family_with_a_form_is_served(case: str) -> None:
    model = tiny_family(case)
    assert serves(model, linears_of(model))


@pytest.mark.parametrize(
    ("case", "changes"),
    [
        ("llama", {"attention_dropout": 0.1}),
        ("llama", {"hidden_act": "relu"}),
        ("phi3", {"resid_pdrop": 0.1}),
        ("gemma2", {"hidden_activation": "gelu"}),
        ("gemma3", {"use_bidirectional_attention": True}),
    ],
)
def test_what_a_configuration_asks_for_beside_the_form_is_not_served(case: str, changes: dict[str, Any]) -> None:
    model = tiny_family(case, **changes)
    assert not serves(model, linears_of(model))


def test_a_family_without_a_form_is_not_served() -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("olmo", **SIZES))
    assert not serves(model, linears_of(model))


def test_another_head_than_that_of_next_tokens_is_not_served() -> None:
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("llama", **SIZES))
    assert not serves(model, {})


@pytest.mark.parametrize("left_out", [True, False])
def test_other_linear_layers_than_those_of_the_form_are_not_served(left_out: bool) -> None:
    model = tiny_family("llama")
    linears = linears_of(model)
    if left_out:
        linears.pop("model.layers.1.mlp.up_proj")
    else:
        linears["model.layers.1.mlp.more_proj"] = nn.Linear(32, 48)
    assert not serves(model, linears)


def test_a_bias_that_the_configuration_does_not_tell_of_is_not_served() -> None:
    model = tiny_family("llama")
    layer = model.model.layers[1].self_attn.q_proj
    layer.bias = nn.Parameter(torch.zeros(layer.out_features))
    assert not serves(model, linears_of(model))


@pytest.mark.parametrize("norm", [nn.LayerNorm(32), nn.RMSNorm(16), nn.Identity()])
def test_a_norm_of_another_class_or_width_is_not_served(norm: nn.Module) -> None:
    model = tiny_family("llama")
    model.model.layers[2].input_layernorm = norm
    assert not serves(model, linears_of(model))
