"""The formulas of activations against the bytes of every tensor alive in a real pass, on small models."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoConfig, AutoModelForCausalLM

from search_spaces.trial_config import TARGET_SETS
from tests.support.trainables.memory_cases import MIB, SHAPES
from tests.support.trainables.memory_trace import allocate_as_a_card, traced_peak
from trainables import limits
from trainables.base_model.shape import ModelShape
from trainables.memory.prediction import predict, predict_pack
from trainables.memory.setting import AdapterLoad, MemoryConstants, MemorySetting
from trainables.packed.packed_model import PackedModel

NOTHING = MemoryConstants(context_bytes=0, offset_bytes=0)
WEIGHTS = ("base_linears", "embedding_and_head", "norms", "adapter_weights", "gradients", "optimizer_state")
Q_V, ALL_LINEAR = TARGET_SETS["q_v"], TARGET_SETS["all_linear"]
WIDE_MLP = {
    "hidden_size": 64, "intermediate_size": 224, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip
WIDE_HEADS = {
    "hidden_size": 96, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 40,
}  # fmt: skip


def build(sizes, dtype, checkpointing, model_type="llama", layers=3, vocabulary=97) -> tuple[PackedModel, ModelShape]:
    config = AutoConfig.for_model(
        model_type, **sizes, num_hidden_layers=layers, vocab_size=vocabulary, max_position_embeddings=256
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").to(dtype).requires_grad_(False).train()
    if checkpointing:
        options = {"use_reentrant": False, "preserve_rng_state": False}
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    return PackedModel(model, fused=model_type == "llama"), ModelShape.from_config(config.to_dict())


def predicted_peak(shape, setting, loads) -> int:
    prediction = predict_pack(shape, setting, loads, NOTHING)
    return prediction.peak_memory_bytes - sum(prediction.components[name] for name in WEIGHTS)


def card_setting(checkpointing: bool) -> MemorySetting:
    """What is traced on a CPU attends as a CPU does."""
    return MemorySetting("bf16", "bf16", gradient_checkpointing=checkpointing, attention="cpu")


@pytest.mark.parametrize("sizes", [WIDE_MLP, WIDE_HEADS], ids=["grouped queries", "wide heads"])
@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize("targets", [Q_V, ALL_LINEAR, ("o_proj", "gate_proj"), ("down_proj",)], ids="+".join)
def test_a_pass_on_a_card_is_within_one_percent(monkeypatch, sizes, checkpointing, targets):
    allocate_as_a_card(monkeypatch)
    model, shape = build(sizes, torch.bfloat16, checkpointing)
    for dropout in (False, True):
        loads = [AdapterLoad(8, targets, dropout, rows=2, tokens=48, targets=32)]
        measured = traced_peak(model, loads)
        assert predicted_peak(shape, card_setting(checkpointing), loads) == pytest.approx(measured, rel=0.01)


def test_a_mixed_pack_on_a_card_is_within_two_percent(monkeypatch):
    allocate_as_a_card(monkeypatch)
    model, shape = build(WIDE_MLP, torch.bfloat16, True)
    loads = [AdapterLoad(4, Q_V, False, 1, 48, 16), AdapterLoad(8, ALL_LINEAR, True, 2, 48, 32),
             AdapterLoad(16, Q_V, True, 1, 48, 16)]  # fmt: skip
    assert predicted_peak(shape, card_setting(True), loads) == pytest.approx(traced_peak(model, loads), rel=0.02)


@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize(("layers", "reach", "over"), [(2, None, 1.01), (1, 1, 1.02), (1, 3, 1.10)])
def test_adapters_of_some_layers_are_never_low(monkeypatch, checkpointing, layers, reach, over):
    """Nothing is kept below the lowest layer that carries an adapter.

    The lowest needs no gradient of its input, and where it is below others that carry none, their inputs are freed.
    """
    allocate_as_a_card(monkeypatch)
    model, shape = build(WIDE_MLP, torch.bfloat16, checkpointing, layers=4)
    loads = [AdapterLoad(8, ALL_LINEAR, False, 2, 48, 32, layers, reach)]
    measured = traced_peak(model, loads)
    assert 0.99 * measured <= predicted_peak(shape, card_setting(checkpointing), loads) <= over * measured


@pytest.mark.parametrize("checkpointing", [True, False])
def test_a_pack_keeps_what_its_deepest_adapter_needs(monkeypatch, checkpointing):
    """Within 2 %, as other mixed packs."""
    allocate_as_a_card(monkeypatch)
    model, shape = build(WIDE_MLP, torch.bfloat16, checkpointing, layers=4)
    loads = [AdapterLoad(8, ALL_LINEAR, False, 2, 48, 32, 2), AdapterLoad(8, Q_V, False, 1, 48, 16)]
    measured = traced_peak(model, loads)
    assert predicted_peak(shape, card_setting(checkpointing), loads) == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize("targets", [8, 32, 64, 90])
def test_the_loss_keeps_one_chunk_of_logits_at_most(monkeypatch, targets):
    """A vocabulary that outweighs the layers, in chunks of 16 positions."""
    allocate_as_a_card(monkeypatch)
    monkeypatch.setattr(limits, "LOGITS_CHUNK_BYTES", 16 * 2 * 16001)
    model, shape = build(WIDE_MLP, torch.bfloat16, True, layers=1, vocabulary=16001)
    loads = [AdapterLoad(2, ("q_proj",), False, 1, 96, targets)]
    setting = card_setting(True)
    if targets >= 32:
        assert predict_pack(shape, setting, loads, NOTHING).peak_moment == "loss"
    assert predicted_peak(shape, setting, loads) == pytest.approx(traced_peak(model, loads), rel=0.01)


@pytest.mark.parametrize("checkpointing", [True, False])
def test_plain_mathematics_is_within_two_percent(monkeypatch, checkpointing):
    allocate_as_a_card(monkeypatch)
    model, shape = build(WIDE_MLP, torch.bfloat16, checkpointing)
    setting = replace(card_setting(checkpointing), attention="math")
    for tokens in (48, 192):
        loads = [AdapterLoad(8, ALL_LINEAR, False, rows=2, tokens=tokens, targets=tokens)]
        with sdpa_kernel(SDPBackend.MATH):
            measured = traced_peak(model, loads)
        assert 0.995 * measured <= predicted_peak(shape, setting, loads) <= 1.02 * measured


def test_a_kernel_without_scores_takes_less_than_them():
    """Mistral 7B, 1 x 2048, on a T4: 1.7 GiB of scores."""
    load, shape = AdapterLoad(16, Q_V, False, 1, 2048, 1024), SHAPES["mistral-7b"]
    flash, efficient, plain = (
        predict(shape, MemorySetting("nf4", "fp16", attention=attention), load)
        for attention in ("flash", "memory_efficient", "math")
    )
    assert plain.peak_moment == "attention_forward"
    assert plain.peak_memory_bytes - efficient.peak_memory_bytes > 600 * MIB
    assert 0 <= efficient.peak_memory_bytes - flash.peak_memory_bytes < 40 * MIB
