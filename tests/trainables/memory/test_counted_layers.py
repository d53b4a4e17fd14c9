"""Predictions from counted layers against the bytes alive in a real pass through transformers' own layers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.support.trainables.memory_trace import traced_peak
from tests.trainables.base_model.probe.counting.test_count import config_of
from tests.trainables.memory.test_fused_layers import NOTHING, card_setting, predicted_peak
from trainables.base_model.probe.counting import count
from trainables.base_model.probe.counting.count import decoder_layers
from trainables.base_model.shape import ModelShape
from trainables.memory.moments import basis_words
from trainables.memory.prediction import adapter_bytes, base_bytes, predict, predict_pack
from trainables.memory.setting import AdapterLoad
from trainables.packed.packed_model import PackedModel


@dataclass(frozen=True)
class CountedShape(ModelShape):
    """A shape whose linear layers are given."""

    sizes: tuple[tuple[str, tuple[int, int]], ...] = ()

    @cached_property
    def linears(self):
        """One layer's linear weights by short name."""
        return dict(self.sizes)

    @property
    def is_fused(self) -> bool:
        """Not what is counted."""
        return False


def shape_of(config) -> CountedShape:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    layer = decoder_layers(model)[0]
    linears = [(name, one) for name, one in layer.named_modules() if isinstance(one, torch.nn.Linear)]
    heads = config.num_attention_heads
    return CountedShape(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        layers=config.num_hidden_layers,
        attention_heads=heads,
        key_value_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=config.hidden_size // heads,
        vocab_size=config.vocab_size,
        tie_word_embeddings=False,
        other_parameters=0,
        model_type=config.model_type,
        counted=count(model),
        sizes=tuple((name.split(".")[-1], (one.in_features, one.out_features)) for name, one in linears),
    )


def packed(config, dtype, checkpointing) -> PackedModel:
    pytest.importorskip("trainables.packed.wrapped.grouped_linear")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").to(dtype)
    model.requires_grad_(False).train()
    if checkpointing:
        options = {"use_reentrant": False, "preserve_rng_state": False}
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    return PackedModel(model, fused=False)


@pytest.mark.parametrize("model_type", ["gpt_neox", "phi", "cohere", "olmo"])
@pytest.mark.parametrize("checkpointing", [True, False], ids=["checkpointing", "plain"])
@pytest.mark.parametrize("some", [True, False], ids=["a target", "all"])
def test_a_pass_is_within_an_eighth_and_never_low(model_type, checkpointing, some):
    """At most 1 % low, 13 % high: autograd sums gradients that a group's node sums in place, the lowest layer keeps
    less, and layer norms need less than RMS norms do."""
    config = config_of(model_type, num_hidden_layers=8)
    shape = shape_of(config)
    model = packed(config, torch.bfloat16, checkpointing)
    names = tuple(shape.linears)[: 1 if some else None]
    for dropout in (False, True):
        loads = [AdapterLoad(8, names, dropout, rows=2, tokens=96, targets=96)]
        measured = traced_peak(model, loads)
        assert 0.99 * measured <= predicted_peak(shape, card_setting(checkpointing), loads) <= 1.13 * measured


def test_every_number_follows_from_what_was_counted():
    """Scores need more than repeated heads do; a pack needs no more than base and adapters."""
    shape = shape_of(config_of("phi"))
    load = AdapterLoad(8, ("q_proj", "fc2"), False, 2, 400, 400)
    assert basis_words(shape) == "counted from one layer of phi"
    flash, efficient, plain = (
        predict(shape, replace(card_setting(True), attention=attention), load, NOTHING)
        for attention in ("flash", "memory_efficient", "math")
    )
    assert plain.needed_bytes > efficient.needed_bytes >= flash.needed_bytes
    assert plain.needed_bytes - flash.needed_bytes > 4 * 4 * 2 * 400**2  # of one fp32 number a pair and head
    own = adapter_bytes(shape, card_setting(True), load, NOTHING)
    pack = predict_pack(shape, card_setting(True), [load] * 2, NOTHING)
    assert pack.needed_bytes <= base_bytes(shape, card_setting(True), NOTHING) + 2 * own
