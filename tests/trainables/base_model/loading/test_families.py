"""Each family is loaded, and quantized, without transformers' detours, and is what transformers makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

from tests.support.trainables.loaded_models import assert_same
from trainables.base_model.families import FAMILIES
from trainables.base_model.loading.direct import load_directly, quantize_directly
from trainables.base_model.loading.placement import Placement

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 16,
    "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": 0, "attention_dropout": 0.1,
}  # fmt: skip
WITHOUT_A_FORM = ("stablelm", "phi")  # those whose files name tensors otherwise are left to transformers, as gpt_neox


@pytest.mark.parametrize("precision", ["bf16", "nf4"])
@pytest.mark.parametrize("family", [*FAMILIES, *WITHOUT_A_FORM])
def test_it_is_what_transformers_loads(family: str, precision: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SIZES)).save_pretrained(tmp_path)
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    if precision == "nf4":
        ours = quantize_directly(tmp_path, Placement({"": CPU}), torch.bfloat16, nf4)
    else:
        ours = load_directly(tmp_path, Placement({"": CPU}), torch.bfloat16)
    options: dict[str, Any] = {"quantization_config": nf4} if precision == "nf4" else {}
    theirs = AutoModelForCausalLM.from_pretrained(
        str(tmp_path), device_map={"": "cpu"}, dtype=torch.bfloat16, attention_dropout=0.0, **options
    )
    assert ours is not None
    assert ours.config._attn_implementation == ("eager" if family == "gemma2" else "sdpa")
    assert_same(ours, theirs)
