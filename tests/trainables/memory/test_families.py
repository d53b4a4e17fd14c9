"""The fused layers' formulas in every family's form, against the bytes alive in a real pass on small models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.support.trainables.memory_trace import allocate_as_a_card, traced_peak
from tests.trainables.memory.test_fused_layers import NOTHING, card_setting, predicted_peak
from trainables import limits
from trainables.base_model.shape import ModelShape
from trainables.memory.prediction import predict_pack
from trainables.memory.setting import AdapterLoad
from trainables.packed.packed_model import PackedModel

SIZES = {
    "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 97, "max_position_embeddings": 256, "pad_token_id": 0,
}  # fmt: skip
GEMMA = {"head_dim": 24, "query_pre_attn_scalar": 24, "sliding_window": 32}
CASES = {
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral with a window": ("mistral", {"sliding_window": 32, "head_dim": 24}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 24}),
    "smollm3": ("smollm3", {"attention_bias": True}),
    "gemma2": ("gemma2", GEMMA),
    "gemma2 uncapped": ("gemma2", {**GEMMA, "attn_logit_softcapping": None}),
    "gemma3": ("gemma3_text", {**GEMMA, "sliding_window_pattern": 2}),
    "phi3": ("phi3", {"sliding_window": None}),
    "phi3 of heads of their own": ("phi3", {"sliding_window": None, "num_key_value_heads": 4}),
    "olmo2": ("olmo2", {}),
    "granite": ("granite", {"residual_multiplier": 0.4}),
}


def build(case: str, checkpointing: bool) -> tuple[PackedModel, ModelShape]:
    """A model of one of `CASES` in bf16. Skips where the family is not computed by the fused layers."""
    model_type, own = CASES[case]
    config = AutoConfig.for_model(model_type, **{**SIZES, **own})
    shape = ModelShape.from_config(config.to_dict())
    if not shape.is_fused:
        pytest.skip(f"the fused layers do not compute {model_type}")
    torch.manual_seed(0)
    attention = "sdpa" if AutoModelForCausalLM._model_mapping[type(config)]._supports_sdpa else "eager"
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    model.to(torch.bfloat16).requires_grad_(False).train()
    if checkpointing:
        options = {"use_reentrant": False, "preserve_rng_state": False}
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    packed = PackedModel(model)
    assert packed.fused
    return packed, shape


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("checkpointing", [True, False], ids=["checkpointing", "plain"])
@pytest.mark.parametrize("targets", ["q_v", "all_linear"])
def test_a_pass_on_a_card_is_within_two_percent(monkeypatch, case, checkpointing, targets):
    """Of capped scores 3 %: where a card multiplies 16 bits to 32, a CPU has the product in 16 bits as well."""
    allocate_as_a_card(monkeypatch)
    model, shape = build(case, checkpointing)
    names, within = shape.family.targets[targets], 0.03 if shape.caps_attention else 0.02
    for dropout in (False, True):
        loads = [AdapterLoad(8, names, dropout, rows=2, tokens=48, targets=32)]
        measured = traced_peak(model, loads)
        assert predicted_peak(shape, card_setting(checkpointing), loads) == pytest.approx(measured, rel=within)


@pytest.mark.parametrize(("rows", "tokens"), [(1, 48), (3, 48), (2, 200), (4, 100)])
def test_capped_scores_are_within_three_percent(monkeypatch, rows, tokens):
    """Of one row and of several, whole and in parts: scores outweigh the rest."""
    allocate_as_a_card(monkeypatch)
    monkeypatch.setattr(limits, "CAPPED_SCORES_BYTES", 2 * 4 * 4 * 100**2)
    model, shape = build("gemma2", True)
    loads = [AdapterLoad(2, ("q_proj",), False, rows, tokens, 8)]
    assert predict_pack(shape, card_setting(True), loads, NOTHING).peak_moment == "attention"
    measured = traced_peak(model, loads)
    assert predicted_peak(shape, card_setting(True), loads) == pytest.approx(measured, rel=0.03)


def test_a_window_needs_a_mask_where_rows_are_longer():
    """Then FlashAttention does not attend, but the memory-efficient kernel, with e bytes a pair of columns."""
    shape = replace(ModelShape.from_config(CONFIG), model_type="mistral", sliding_window=64)
    setting = replace(card_setting(True), attention="flash")
    short, long = (AdapterLoad(8, ("q_proj",), False, 1, tokens, 8) for tokens in (64, 72))
    wide = replace(shape, sliding_window=None)

    def more(load: AdapterLoad) -> int:
        return predicted_peak(shape, setting, [load]) - predicted_peak(wide, setting, [load])

    assert more(short) == 0
    if shape.is_fused:
        assert more(long) >= 2 * 72 * 72


CONFIG = {"model_type": "llama", **SIZES}
