"""Checkpoints that are quantized already: NF4 of bitsandbytes is taken, with what its configuration says; no other."""

from __future__ import annotations

from typing import Any

import pytest

from trainables.base_model.checks.quantization import FourBit, four_bit_of, quantization_faults

# As transformers writes it, and as it was written when 4-bit weights could first be saved.
NEW: dict[str, Any] = {
    "_load_in_4bit": True, "_load_in_8bit": False, "bnb_4bit_compute_dtype": "bfloat16",
    "bnb_4bit_quant_storage": "uint8", "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
    "llm_int8_enable_fp32_cpu_offload": False, "llm_int8_has_fp16_weight": False, "llm_int8_skip_modules": None,
    "llm_int8_threshold": 6.0, "load_in_4bit": True, "load_in_8bit": False, "quant_method": "bitsandbytes",
}  # fmt: skip
OLD: dict[str, Any] = {
    "bnb_4bit_compute_dtype": "float16", "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": False,
    "llm_int8_skip_modules": None, "load_in_4bit": True, "load_in_8bit": False,
}  # fmt: skip


def _told(given: Any) -> list[str]:
    return [str(fault) for fault in quantization_faults({"quantization_config": given}, "config.json", "the model")]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ({}, None),
        (NEW, FourBit(True)),
        (OLD, FourBit(False)),
        ({**NEW, "llm_int8_skip_modules": ["lm_head", "layers.1"]}, FourBit(True, ("lm_head", "layers.1"))),
        ({**NEW, "bnb_4bit_compute_dtype": "float32"}, FourBit(True)),
    ],
)  # fmt: skip
def test_nf4_is_taken_as_it_is(given: Any, expected: FourBit | None) -> None:
    assert _told(given) == []
    assert four_bit_of({"quantization_config": given}) == expected


@pytest.mark.parametrize(
    ("given", "name"),
    [
        *(({"quant_method": name}, name) for name in (
            "gptq", "awq", "fp8", "fbgemm_fp8", "hqq", "compressed-tensors", "aqlm", "eetq", "quanto", "torchao",
            "mxfp4", "something new",
        )),
        ({**NEW, "bnb_4bit_quant_type": "fp4"}, "FP4 of bitsandbytes"),
        ({name: value for name, value in NEW.items() if name != "bnb_4bit_quant_type"}, "FP4 of bitsandbytes"),
        ({**NEW, "load_in_4bit": False, "load_in_8bit": True}, "int8 of bitsandbytes"),
        ({**NEW, "load_in_4bit": False}, "bitsandbytes, of neither 4 nor 8 bits"),
        ({"bits": 4}, "unknown"),
        ([4], "no mapping"),
        (True, "no mapping"),
    ],
)  # fmt: skip
def test_all_else_is_refused_by_name_with_what_to_use(given: Any, name: str) -> None:
    (told,) = _told(given)
    assert f"must not be quantized already; the model is ({name}), and not NF4 of bitsandbytes" in told
    assert "Give the original weights, which precision nf4 quantizes, or an NF4 checkpoint of bitsandbytes" in told


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("bnb_4bit_quant_storage", "bfloat16", "must be one of uint8"),
        ("bnb_4bit_use_double_quant", "yes", "must be true or false"),
        ("bnb_4bit_compute_dtype", 16, "must be a text"),
        ("llm_int8_skip_modules", "lm_head", "must be a list"),
        ("llm_int8_skip_modules", ["(a+)+b"], "must be the name of a module"),
        ("llm_int8_skip_modules", [3], "must be the name of a module"),
    ],
)
def test_each_value_has_a_rule(key: str, value: Any, rule: str) -> None:
    (told,) = _told({**NEW, key: value})
    assert f"quantization_config.{key}" in told
    assert rule in told


@pytest.mark.parametrize(
    "name",
    [
        "lm_head", "model.layers.1.mlp", "model.layers.1.mlp.up_proj", "layers.2.self_attn.q_proj", "down_proj", "mlp",
        "model.layers.1",
    ],
)  # fmt: skip
def test_skipped_modules_are_those_of_transformers(name: str) -> None:
    from transformers.quantizers.quantizers_utils import should_convert_module

    four_bit = FourBit(True, ("lm_head", name))
    parts = ("self_attn.q_proj", "mlp.up_proj", "mlp.gate_proj", "mlp.down_proj")
    modules = [f"model.layers.{layer}.{part}" for layer in (0, 1, 2, 11) for part in parts]
    for module in ["lm_head", *modules]:
        assert four_bit.quantizes(module) == should_convert_module(module, ["lm_head", name]), module
