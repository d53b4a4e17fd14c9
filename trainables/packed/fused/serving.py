"""Says whether a model's decoder has a form that is computed here; others go through transformers' own layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from trainables.base_model.families import FAMILIES
from trainables.packed.fused.form import ACTIVATIONS, DecoderForm

LAYER_TYPES = {"full_attention", "sliding_attention"}


def serves(model: Any, linears: Mapping[str, nn.Linear]) -> bool:
    """Whether `FusedDecoder` computes the model; `linears` are its frozen linear layers by name.

    It must be transformers' own class of a family with a form, with exactly that form's linear layers, biases and
    norms, an activation that is computed here, no dropout, and attention to earlier tokens alone.
    """
    config = model.config
    if not _is_of_a_family(model):
        return False
    if getattr(config, FAMILIES[config.model_type].activation_key, None) not in ACTIVATIONS:
        return False
    form, decoder = DecoderForm.of(config), model.get_decoder()
    return (
        _attends_to_earlier_tokens(config)
        and _linears_as_expected(form, config, linears)
        and not any(map(_drops, decoder.layers))
        and all(_norms_of(layer, linears) == _expected_norms(form) for layer in decoder.layers)
        and _ends_as_expected(form, decoder)
    )


def _is_of_a_family(model: Any) -> bool:
    """Whether the model is of the class that transformers loads a family's configuration as."""
    name, kind = model.config.model_type, type(model)
    own = kind.__module__.startswith("transformers.models.")
    return own and name in FAMILIES and MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(name) == kind.__name__


def _attends_to_earlier_tokens(config: Any) -> bool:
    types = set(getattr(config, "layer_types", None) or ())
    return types <= LAYER_TYPES and not getattr(config, "use_bidirectional_attention", None)


def _drops(layer: Any) -> bool:
    """Whether a layer in training drops scores or outputs; LoRA's own dropout is none of the layer's."""
    of_outputs = (module.p for module in layer.modules() if isinstance(module, nn.Dropout))
    return bool(getattr(layer.self_attn, "attention_dropout", None)) or any(of_outputs)


def _linears_as_expected(form: DecoderForm, config: Any, linears: Mapping[str, nn.Linear]) -> bool:
    biased = form.family.biased(config.to_dict())
    of_attention = (*form.family.qkv, "o_proj")
    expected = {
        f"model.layers.{place}.{'self_attn' if name in of_attention else 'mlp'}.{name}": (*sizes, name in biased)
        for place in range(config.num_hidden_layers)
        for name, sizes in form.shape.linears.items()
    }
    return expected == {name: (x.in_features, x.out_features, x.bias is not None) for name, x in linears.items()}


def _norms_of(layer: nn.Module, linears: Mapping[str, nn.Linear]) -> dict[str, int]:
    """Returns the widths of a layer's RMS norms by name; -1 for whatever else has weights beside its linear layers."""
    known = {id(linear) for linear in linears.values()}
    others = {name: module for name, module in layer.named_modules() if id(module) not in known}
    return {
        name: weights[0].numel() if len(weights) == 1 and _is_rms_norm(module) else -1
        for name, module in others.items()
        if (weights := list(module.parameters(recurse=False)))
    }


def _expected_norms(form: DecoderForm) -> dict[str, int]:
    of_heads = zip(("self_attn.q_norm", "self_attn.k_norm"), form.shape.head_norm_sizes, strict=True)
    around = dict.fromkeys(form.family.norms.names, form.shape.hidden_size)
    return {**around, **{name: width for name, width in of_heads if width}}


def _is_rms_norm(module: nn.Module) -> bool:
    return type(module).__module__.startswith("transformers.models.") and type(module).__name__.endswith("RMSNorm")


def _ends_as_expected(form: DecoderForm, decoder: Any) -> bool:
    """Whether the last norm, the factor of embeddings and the width of rotary angles are those of the form."""
    family, head_dim = form.family, form.shape.head_dim
    scaled = hasattr(decoder.embed_tokens, "embed_scale") == (family.embedding_scale != "none")
    frequencies = [buffer for name, buffer in decoder.rotary_emb.named_buffers() if name.endswith("inv_freq")]
    turned = {2 * len(buffer) for buffer in frequencies}
    return _is_rms_norm(decoder.norm) and scaled and (family.partly_rotated or turned == {head_dim})
