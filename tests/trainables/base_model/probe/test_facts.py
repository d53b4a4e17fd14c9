"""What a probe finds of tiny decoders is what transformers built, and their files hold the tensors it names. Exact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from trainables.base_model.checks.tensors import probed_tensors as needed_of
from trainables.base_model.checks.tensors import tensor_faults
from trainables.base_model.probe.facts import DecoderFacts
from trainables.base_model.probe.look import NoDecoderError, facts_of
from trainables.base_model.shape import ModelShape

SIZES = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
OLDER = {key: value for key, value in SIZES.items() if key not in ("intermediate_size", "num_key_value_heads")}
DECODERS: dict[str, dict[str, Any]] = {
    "gpt_neox": SIZES, "olmo": SIZES, "olmo3": SIZES, "gemma": {**SIZES, "head_dim": 8}, "stablelm": SIZES,
    "starcoder2": SIZES, "phi": SIZES, "cohere": SIZES, "cohere2": SIZES, "glm4": {**SIZES, "head_dim": 8},
    "falcon": OLDER, "bloom": OLDER, "gptj": {**OLDER, "rotary_dim": 4}, "gpt_bigcode": OLDER, "exaone4": SIZES,
    "opt": {**OLDER, "ffn_dim": 48, "word_embed_proj_dim": 32}, "mpt": {"vocab_size": 96, "d_model": 32, "n_heads": 4,
    "n_layers": 2, "max_seq_len": 128}, "helium": {**SIZES, "head_dim": 8}, "arcee": {**SIZES, "head_dim": 8},
}  # fmt: skip
REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"model_type": "gpt2"}, "gpt2: its projections are Conv1D, not linear layers"),
    ({"model_type": "mixtral", **SIZES}, "mixtral: it is a mixture of experts"),
    ({"model_type": "qwen2_moe", **SIZES}, "qwen2_moe: it is a mixture of experts"),
    ({"model_type": "mamba", **SIZES}, "mamba: its layers' mixer is MambaMixer, not linear layers"),
    ({"model_type": "bert", **SIZES}, "bert: its tokens attend to later ones"),
    ({"model_type": "t5"}, "t5: it is no causal language model of the installed transformers"),
    ({"model_type": "nothing"}, "nothing: it is no causal language model"),
    ({"model_type": "trocr"}, "trocr: it reads an encoder's output"),
    ({"model_type": "olmo", **SIZES, "num_attention_heads": 0}, "olmo: transformers cannot build it"),
    ({"model_type": "olmo", **SIZES, "num_key_value_heads": 3}, "olmo: num_key_value_heads, 3, must divide"),
    ({"model_type": "olmo", **SIZES, "architectures": ["OlmoForSequenceClassification"]}, "must be OlmoForCausalLM"),
)  # fmt: skip


@pytest.mark.parametrize("model_type", DECODERS)
def test_a_decoder_is_found_as_it_is_built_and_saved(model_type: str, tmp_path: Path) -> None:
    values = {"model_type": model_type, **DECODERS[model_type]}
    facts = facts_of(values)
    assert DecoderFacts.from_json(json.loads(json.dumps(facts.to_json()))) == facts
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**values))
    shape = ModelShape.of_facts(facts)
    assert shape.parameter_count == sum(parameter.numel() for parameter in model.parameters())
    linear = {
        name: (module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and any(part.isdecimal() for part in name.split("."))
    }
    assert {one.name: (one.in_features, one.out_features) for one in facts.linears} == linear
    assert shape.layer_linear_parameters * shape.layers == sum(inward * outward for inward, outward in linear.values())
    assert (shape.hidden_size, shape.layers, shape.vocab_size, shape.head_dim) == (32, 2, 96, 8)
    assert not shape.is_fused
    assert not shape.has_head_norms
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert list(tensor_faults(found, needed_of(facts), "here")) == []
    (largest, *_) = sorted(found, key=lambda name: "layers.1" in name or ".h.1." in name or "blocks.1" in name)[-1:]
    lacking = {name: size for name, size in found.items() if name != largest}
    assert [fault.key for fault in tensor_faults(lacking, needed_of(facts), "here")] != []
    other = {**found, largest: (*found[largest], 1)}
    assert [fault.key for fault in tensor_faults(other, needed_of(facts), "here")] == [largest]


@pytest.mark.parametrize(("values", "words"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_no_decoder_with_linear_layers_is_refused_with_its_reason(values: dict[str, Any], words: str) -> None:
    with pytest.raises(NoDecoderError) as caught:
        facts_of(values)
    assert words in str(caught.value)
    assert caught.value.remedy.endswith(".")


def test_no_code_but_transformers_own_is_run(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('run')")
    facts = facts_of({"model_type": "olmo", **SIZES, "auto_map": {"AutoModelForCausalLM": f"{tmp_path}--evil.Model"}})
    assert facts.model_type == "olmo"


def test_layers_that_share_a_short_name_are_told_apart() -> None:
    shape = ModelShape.of_facts(facts_of({"model_type": "gpt_bigcode", **OLDER}))
    assert list(shape.linears) == ["c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"]
