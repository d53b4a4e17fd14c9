"""The table of a configuration's keys: every published form holds, and the names are those of transformers."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from transformers import AutoConfig
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from trainables.base_model.checks.configuration import (
    ACTIVATIONS,
    DTYPES,
    MODEL_TYPES,
    MOST_LAYERS,
    OPTIONAL,
    REQUIRED,
    configuration_faults,
)  # fmt: skip
from trainables.base_model.checks.rope import TYPES

LLAMA_3_2 = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009], "head_dim": 64, "hidden_act": "silu",
    "hidden_size": 2048, "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 131072,
    "mlp_bias": False, "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": True,
    "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "rope_type": "llama3",
                     "original_max_position_embeddings": 8192},
    "torch_dtype": "bfloat16", "transformers_version": "4.45.0.dev0", "use_cache": True, "vocab_size": 128256,
}  # fmt: skip
PUBLISHED: dict[str, dict[str, Any]] = {
    "Llama 3.2": LLAMA_3_2,
    "the first Llama": {**LLAMA_3_2, "pad_token_id": -1, "rope_scaling": None, "rope_theta": 10000, "head_dim": None},
    "Llama 2 at length": {**LLAMA_3_2, "rope_scaling": {"type": "linear", "factor": 2}},
    "Mistral": {**LLAMA_3_2, "model_type": "mistral", "sliding_window": None, "rope_scaling": None},
    "Qwen2": {**LLAMA_3_2, "model_type": "qwen2", "rope_scaling": None, "use_sliding_window": False,
              "sliding_window": 131072, "max_window_layers": 28},
    "Qwen3 at length": {**LLAMA_3_2, "model_type": "qwen3", "max_window_layers": 36, "rope_scaling": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}},
    "SmolLM3": {**LLAMA_3_2, "model_type": "smollm3", "rope_scaling": None, "no_rope_layers": [1, 1, 1, 0] * 4,
                "no_rope_layer_interval": 4, "layer_types": ["full_attention"] * 16, "pad_token_id": 128004},
    "405 B": {**LLAMA_3_2, "hidden_size": 16384, "intermediate_size": 53248, "num_hidden_layers": 126,
              "num_attention_heads": 128, "head_dim": 128},
    "of somebody's tools": {**LLAMA_3_2, "unsloth_version": "2025.1", "_name_or_path": "x", "quantization_config": None,
                            "transformers.js_config": {"dtype": {"q4": 1}}},
}  # fmt: skip


TINY = {
    "vocab_size": 61, "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "pad_token_id": None,
}  # fmt: skip
LONG = {"rope_type": "longrope", "short_factor": [1.0] * 6, "long_factor": [2.0] * 6}
REFUSED: tuple[tuple[str, dict[str, Any], str], ...] = (  # key, configuration, a word of the rule
    ("attn_logit_softcapping", {"model_type": "gemma2", "attn_logit_softcapping": 50}, "decimal point"),
    ("final_logit_softcapping", {"model_type": "gemma3_text", "final_logit_softcapping": 0.0}, "from 0.001"),
    ("use_bidirectional_attention", {"model_type": "gemma3_text", "use_bidirectional_attention": True}, "false"),
    ("hidden_activation", {"model_type": "gemma2", "hidden_activation": None}, "one of silu"),
    ("rope_parameters.rope_type", {"model_type": "gemma3_text", "rope_parameters": {"rope_type": "default"}}, "under"),
    ("rope_parameters.full_attention.factor",
     {"model_type": "gemma3_text", "rope_parameters": {"full_attention": {"rope_type": "linear"}}}, "must be given"),
    ("rope_scaling.rope_type", {"model_type": "phi3", "rope_scaling": {"rope_type": "yarn", "factor": 2}}, "phi3"),
    ("rope_scaling.type", {"model_type": "phi3", "rope_scaling": {**LONG, "rope_type": "longrope", "type": "su"}},
     "one of"),
    ("rope_scaling.long_factor", {"model_type": "phi3", "partial_rotary_factor": 0.75,
                                  "rope_scaling": {**LONG, "long_factor": [1.0] * 8}}, "part of a head"),
    ("rope_scaling.partial_rotary_factor",
     {"model_type": "phi3", "rope_scaling": {**LONG, "partial_rotary_factor": 0.1}}, "even number"),
    ("partial_rotary_factor", {"model_type": "granite", "partial_rotary_factor": 0.5}, "must be 1"),
    ("resid_pdrop", {"model_type": "phi3", "resid_pdrop": 2}, "from 0 to 1"),
    ("logits_scaling", {"model_type": "granite", "logits_scaling": 0}, "from 1e-09"),
    ("clip_qkv", {"model_type": "olmo2", "clip_qkv": 8.0}, "null"),
)  # fmt: skip


@pytest.mark.parametrize(("key", "values", "word"), REFUSED)
def test_what_a_family_cannot_have_is_refused_by_its_key(key: str, values: dict[str, Any], word: str) -> None:
    faults = configuration_faults({**TINY, **values}, "config.json")
    assert [fault.key for fault in faults] == [key]
    assert word in faults[0].rule


def test_a_part_of_a_head_may_rotate_in_a_phi() -> None:
    values = {**TINY, "model_type": "phi3", "partial_rotary_factor": 0.75, "rope_scaling": LONG}
    assert configuration_faults(values, "config.json") == []
    frequencies, _ = ROPE_INIT_FUNCTIONS["longrope"](AutoConfig.for_model(**values), torch.device("cpu"))
    assert frequencies.shape == (6,)


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_published_holds(name: str) -> None:
    assert configuration_faults(PUBLISHED[name], "config.json") == []
    AutoConfig.for_model(**PUBLISHED[name])


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_what_transformers_writes_holds(model_type: str) -> None:
    config = AutoConfig.for_model(model_type)
    for text in (config.to_json_string(), config.to_json_string(use_diff=False)):
        assert configuration_faults(json.loads(text), "config.json") == []


def test_every_fault_is_told_at_once_in_the_order_of_the_table() -> None:
    wrong = {key: [None, {}] for key in (*REQUIRED, *OPTIONAL)}
    faults = configuration_faults({"model_type": "llama", **wrong}, "config.json")
    assert [fault.key for fault in faults] == [*REQUIRED, *OPTIONAL]
    assert all(fault.file == "config.json" and "must be" in fault.rule and fault.remedy for fault in faults)


def test_a_files_own_names_are_told() -> None:
    names = {"num_hidden_layers": "llama.block_count"}
    (fault,) = configuration_faults(
        {**LLAMA_3_2, "num_hidden_layers": MOST_LAYERS + 1}, "m.gguf", names, "Get another."
    )
    assert (fault.file, fault.key, fault.value) == ("m.gguf", "llama.block_count", MOST_LAYERS + 1)
    assert fault.remedy == "Get another."


def test_the_names_are_those_of_transformers() -> None:
    assert set(ACTIVATIONS) <= set(ACT2FN)
    assert all(not list(ACT2FN[name].parameters()) for name in ACTIVATIONS)
    assert set(TYPES) - {"default"} <= set(ROPE_INIT_FUNCTIONS)
    assert all(isinstance(getattr(torch, name), torch.dtype) for name in DTYPES)


@pytest.mark.parametrize("kind", TYPES)
def test_a_type_of_rotary_positions_needs_what_is_said_of_it(kind: str) -> None:
    """With what the table requires, transformers computes finite frequencies; without any one of it, it is refused."""
    numbers = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    lists = {"short_factor": [1.0] * 32, "long_factor": [2.0] * 32}
    required = {name: {**numbers, **lists}[name] for name in TYPES[kind].required}
    scaling = {"rope_type": kind, "original_max_position_embeddings": 8192, **required}
    if kind in ("default", "linear", "dynamic"):
        del scaling["original_max_position_embeddings"]
    values = {**LLAMA_3_2, "rope_scaling": scaling}
    assert configuration_faults(values, "c") == []
    if kind != "default":
        frequencies, factor = ROPE_INIT_FUNCTIONS[kind](AutoConfig.for_model(**values), torch.device("cpu"))
        assert torch.isfinite(frequencies).all()
        assert factor > 0
    for name in TYPES[kind].required:
        lacking = {key: value for key, value in scaling.items() if key != name}
        faults = configuration_faults({**LLAMA_3_2, "rope_scaling": lacking}, "c")
        assert [fault.key for fault in faults] == [f"rope_scaling.{name}"]
