"""A model's sizes: published parameter counts, and transformers' own models."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.support.trainables.memory_cases import SHAPES
from trainables.base_model.checks.quantization import FourBit
from trainables.base_model.probe.look import facts_of
from trainables.base_model.shape import ModelShape

SMALL = {
    "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 101,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("llama-2-7b", 6_738_415_616), ("llama-3-8b", 8_030_261_248), ("llama-3.2-1b", 1_235_814_400),
     ("llama-3.2-3b", 3_212_749_824), ("mistral-7b", 7_241_732_096)],
)  # fmt: skip
def test_published_parameter_counts(name, parameters):
    assert SHAPES[name].parameter_count == parameters


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 4, "head_dim": 20}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("mistral", {"head_dim": 20}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 16}),
        ("smollm3", {}),
    ],
)
def test_a_shape_has_the_parameters_of_the_model(model_type, changes):
    config = AutoConfig.for_model(model_type, **{**SMALL, **changes})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shape = ModelShape.from_config(config.to_dict())
    assert shape.parameter_count == sum(parameter.numel() for parameter in model.parameters())
    linears = {name.rsplit(".", 1)[-1]: m for name, m in model.model.named_modules() if isinstance(m, torch.nn.Linear)}
    assert {name: (m.in_features, m.out_features) for name, m in linears.items()} == dict(shape.linears)
    assert shape.is_fused


def test_a_shape_is_read_as_json_has_kept_it():
    config = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    facts = facts_of({"model_type": "olmo", **config, "num_attention_heads": 4, "max_position_embeddings": 128})
    four_bit = FourBit(double_quantization=True, skipped=("lm_head",))
    for shape in (SHAPES["llama-3-8b"], ModelShape.of_facts(facts), replace(SHAPES["llama-2-7b"], four_bit=four_bit)):
        assert ModelShape.from_json(json.loads(json.dumps(asdict(shape)))) == shape
