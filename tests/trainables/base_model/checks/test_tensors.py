"""The tensors that a configuration asks for are those of transformers' own model, and files are compared with them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from trainables.base_model.checks.configuration import MODEL_TYPES
from trainables.base_model.checks.tensors import needed_tensors, tensor_faults

SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 61,
    "num_key_value_heads": 2, "pad_token_id": None, "bos_token_id": 0, "eos_token_id": 1,
}  # fmt: skip
FORMS: tuple[dict[str, Any], ...] = (
    {}, {"attention_bias": True, "mlp_bias": True}, {"tie_word_embeddings": True}, {"tie_word_embeddings": False},
    {"head_dim": 20}, {"num_key_value_heads": 4},
)  # fmt: skip


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_they_are_those_of_the_model(model_type: str, form: dict[str, Any]) -> None:
    """Names, shapes and the count of parameters, from the configuration as it is saved, with or without defaults."""
    config = AutoConfig.for_model(model_type, **{**SIZES, **form})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    expected = {name.removeprefix("model."): tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for values in (config.to_dict(), json.loads(config.to_json_string(use_diff=True))):
        needed = needed_tensors(values)
        assert {**needed.shapes, **needed.optional} == expected
        assert bool(needed.optional) == bool(config.tie_word_embeddings)
        assert needed.parameter_count == sum(parameter.numel() for parameter in model.parameters())


def names_of(found: dict[str, tuple[int, ...]], **changes: Any) -> list[tuple[str, str]]:
    """The keys and rules of the faults in these tensors."""
    values = {"model_type": "llama", **SIZES, **changes}
    return [(fault.key, fault.rule) for fault in tensor_faults(found, needed_tensors(values), "here")]


def good(**changes: Any) -> dict[str, tuple[int, ...]]:
    shapes = needed_tensors({"model_type": "llama", **SIZES, **changes}).shapes
    return {name if name == "lm_head.weight" else f"model.{name}": shape for name, shape in shapes.items()}


def test_good_weights_have_no_faults_with_or_without_prefix() -> None:
    assert names_of(good()) == []
    assert names_of({name.removeprefix("model."): shape for name, shape in good().items()}) == []
    assert names_of({**good(), "model.layers.0.self_attn.rotary_emb.inv_freq": (4,), "v_head.weight": (1, 32)}) == []


def test_a_tied_model_may_have_either_name_or_both() -> None:
    tied = good(tie_word_embeddings=True)
    assert "lm_head.weight" not in tied
    assert names_of(tied, tie_word_embeddings=True) == []
    assert names_of({**tied, "lm_head.weight": (61, 32)}, tie_word_embeddings=True) == []
    embedding = tied.pop("model.embed_tokens.weight")
    assert names_of({**tied, "lm_head.weight": embedding}, tie_word_embeddings=True) == []
    assert [key for key, _ in names_of(tied, tie_word_embeddings=True)] == ["tensor"]


def test_each_kind_of_fault_is_told_once() -> None:
    found = {name: shape for name, shape in good().items() if ".2." not in name}
    found["model.norm.weight"] = (31,)
    found["model.layers.0.self_attn.q_proj.bias"] = (32,)
    rules = [rule for _, rule in names_of(found)]
    assert len(rules) == 3
    assert "9 tensors are missing" in rules[0]
    assert "the shape that config.json asks for, 32" in rules[1]
    assert "would be dropped" in rules[2]
