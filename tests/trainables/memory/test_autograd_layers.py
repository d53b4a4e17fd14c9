"""The formulas of transformers' own layers, under each attention, against the bytes alive in a real pass."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.support.trainables.memory_cases import MIB, SHAPES
from tests.support.trainables.memory_trace import allocate_as_a_card, traced_peak
from tests.trainables.memory.test_fused_layers import (
    ALL_LINEAR,
    Q_V,
    WIDE_MLP,
    build,
    card_setting,
    predicted_peak,
)
from trainables.base_model.attention import REPEATED
from trainables.base_model.shape import ModelShape
from trainables.memory.prediction import predict
from trainables.memory.setting import AdapterLoad, MemorySetting


@pytest.mark.parametrize("model_type", ["mistral", "qwen3"])
@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize("targets", [Q_V, ALL_LINEAR], ids="+".join)
def test_plain_mathematics_is_within_eight_percent(monkeypatch, model_type, checkpointing, targets):
    """Short rows, whose peak is the MLP's, and longer ones, whose scores decide; at most 1.5 % low."""
    monkeypatch.setattr(ModelShape, "is_fused", False)  # as if its family had no form
    model, shape = build(WIDE_MLP, torch.bfloat16, checkpointing, model_type)
    setting = replace(card_setting(checkpointing), attention="math")
    for tokens in (48, 192):
        loads = [AdapterLoad(8, targets, tokens == 192, rows=2, tokens=tokens, targets=tokens)]
        with sdpa_kernel(SDPBackend.MATH):
            measured = traced_peak(model, loads)
        assert 0.985 * measured <= predicted_peak(shape, setting, loads) <= 1.08 * measured


@pytest.mark.parametrize("checkpointing", [True, False])
def test_plain_mathematics_under_the_fused_layers_is_within_two_percent(monkeypatch, checkpointing):
    allocate_as_a_card(monkeypatch)
    model, shape = build(WIDE_MLP, torch.bfloat16, checkpointing)
    setting = replace(card_setting(checkpointing), attention="math")
    for tokens in (48, 192):
        loads = [AdapterLoad(8, ALL_LINEAR, False, rows=2, tokens=tokens, targets=tokens)]
        with sdpa_kernel(SDPBackend.MATH):
            measured = traced_peak(model, loads)
        assert 0.995 * measured <= predicted_peak(shape, setting, loads) <= 1.02 * measured


@pytest.mark.parametrize("model_type", ["mistral", "qwen3"])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_repeated_heads_are_within_five_percent(monkeypatch, model_type, checkpointing):
    """As below compute capability 8.0; a CPU's kernel stands for the memory-efficient one. At most 1.5 % low."""
    monkeypatch.setattr(ModelShape, "is_fused", False)  # as if its family had no form
    model, shape = build(WIDE_MLP, torch.bfloat16, checkpointing, model_type)
    model.model.set_attn_implementation(REPEATED)
    setting = replace(card_setting(checkpointing), attention="memory_efficient")
    for dropout in (False, True):
        loads = [AdapterLoad(8, ALL_LINEAR, dropout, rows=2, tokens=96, targets=96)]
        measured = traced_peak(model, loads)
        assert 0.985 * measured <= predicted_peak(shape, setting, loads) <= 1.05 * measured


def test_repeating_heads_takes_less_than_scores():
    """Mistral 7B, 1 x 2048, on a T4: 1.7 GiB of scores against a few MiB of repeated keys and values."""
    load, shape = AdapterLoad(16, Q_V, False, 1, 2048, 1024), SHAPES["mistral-7b"]
    flash, repeated, plain = (
        predict(shape, MemorySetting("nf4", "fp16", attention=attention), load)
        for attention in ("flash", "memory_efficient", "math")
    )
    assert plain.peak_moment == "attention_forward"
    assert plain.peak_memory_bytes - repeated.peak_memory_bytes > 600 * MIB
    assert 0 <= repeated.peak_memory_bytes - flash.peak_memory_bytes < 40 * MIB
