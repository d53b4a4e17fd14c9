"""Reads of a model's configuration what its kernels are compiled for."""

from __future__ import annotations

from typing import Any

from trainables.kernels.ahead import LayerWidths, ModelWidths
from trainables.packed.fused.form import DecoderForm
from trainables.packed.logits_form import LogitsForm

_INPUTS = ("hidden_size", "intermediate_size")


def kernel_widths(config: Any) -> ModelWidths:
    """Reads transformers' configuration; of a decoder without a form, what its losses and usual dropout need."""
    logits = LogitsForm.of(config)
    try:
        form = DecoderForm.of(config)
    except KeyError:
        form = None
    found = (getattr(config, name, None) for name in _INPUTS)
    inputs = [inputs for inputs, _ in form.shape.linears.values()] if form else [one for one in found if one]
    return ModelWidths(
        tuple(dict.fromkeys(inputs)), config.vocab_size, logits.divisor, logits.cap, _of_layer(form, config)
    )


def _of_layer(form: DecoderForm | None, config: Any) -> LayerWidths | None:
    if form is None:
        return None
    shape, family = form.shape, form.family
    return LayerWidths(
        hidden=shape.hidden_size,
        intermediate=shape.intermediate_size,
        heads=shape.attention_heads,
        key_heads=shape.key_value_heads,
        head_dim=shape.head_dim,
        turned=_turned(form, config),
        fp32_angles=family.fp32_angles,
        activation=form.activation,
        joined_qkv=len(family.qkv) == 1,
        joined_gate_up=len(family.gate_up) == 1,
        norm_after_block=bool(family.norms.after_attention or family.norms.after_mlp),
        norm_offset=family.norm_offset,
        head_norms=shape.head_norm_sizes if shape.has_head_norms else (),
    )


def _turned(form: DecoderForm, config: Any) -> tuple[int | None, ...]:
    """Returns how many numbers of a head turn, in each kind of layer."""
    share = 1.0
    if form.family.partly_rotated:
        rope = getattr(config, "rope_parameters", None) or {}
        share = rope.get("partial_rotary_factor") or getattr(config, "partial_rotary_factor", None) or 1.0
    turned = int(form.shape.head_dim * share)
    turns = getattr(config, "no_rope_layers", None) or [True]  # SmolLM3's, true where heads turn
    return tuple(turned if one else None for one in dict.fromkeys(map(bool, turns)))
