"""Checks a model's configuration for sense before anything is built from it: a table of keys, kinds and bounds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from trainables.base_model.checks.faults import ModelFault
from trainables.base_model.checks.rope import LAYER_TYPES, MOST_POSITIONS, PARTIAL, THETA, Broken, rope_faults
from trainables.base_model.checks.tensors import needed_tensors
from trainables.base_model.checks.values import (
    Rule,
    decimal,
    either,
    is_whole,
    list_of,
    mapping,
    name_of,
    never,
    nothing,
    number,
    or_null,
    text,
    truth,
    whole,
)  # fmt: skip
from trainables.base_model.families import FAMILIES

MODEL_TYPES = tuple(FAMILIES)
MOST_LAYERS = 1000
MOST_PARAMETERS = 2 * 10**12
ACTIVATIONS = (  # of transformers, those without weights of their own
    "silu", "swish", "gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_pytorch_tanh",
    "gelu_python_tanh", "hardswish", "leaky_relu", "linear", "mish", "quick_gelu", "relu", "relu2", "relu6", "sigmoid",
    "tanh",
)  # fmt: skip
ATTENTIONS = (
    "eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4",
)  # fmt: skip
DTYPES = ("float16", "bfloat16", "float32", "float64")

_ACTIVATION = name_of(ACTIVATIONS)
_FACTOR = or_null(number(1e-9, 1e9))
_DROPOUT = or_null(number(0, 1))
_TOKEN, _LIST = whole(0, 2**22), list_of(whole(0, 2**22), 64)
_NAMES = list_of(text(), 64)
REQUIRED: Mapping[str, Rule] = {
    "vocab_size": whole(1, 2**22),
    "hidden_size": whole(1, 2**18),
    "intermediate_size": whole(1, 2**21),
    "num_hidden_layers": whole(1, MOST_LAYERS),
    "num_attention_heads": whole(1, 4096),
}
OPTIONAL: Mapping[str, Rule] = {
    "num_key_value_heads": or_null(whole(1, 4096)),
    "head_dim": or_null(whole(2, 4096)),
    "max_position_embeddings": whole(1, MOST_POSITIONS),
    "rms_norm_eps": number(1e-30, 0.1),
    "rope_theta": THETA,
    "rope_local_base_freq": or_null(THETA),
    "partial_rotary_factor": PARTIAL,
    "original_max_position_embeddings": or_null(whole(1, MOST_POSITIONS)),
    "hidden_act": or_null(_ACTIVATION),
    "hidden_activation": or_null(_ACTIVATION),
    "attention_bias": truth(),
    "mlp_bias": truth(),
    "tie_word_embeddings": truth(),
    "use_cache": truth(),
    "attention_dropout": _DROPOUT,
    "resid_pdrop": _DROPOUT,
    "embd_pdrop": _DROPOUT,
    "query_pre_attn_scalar": or_null(whole(1, 2**24)),
    "attn_logit_softcapping": or_null(decimal(1e-3, 1e9)),
    "final_logit_softcapping": or_null(decimal(1e-3, 1e9)),
    "embedding_multiplier": _FACTOR,
    "residual_multiplier": _FACTOR,
    "attention_multiplier": _FACTOR,
    "logits_scaling": _FACTOR,
    "clip_qkv": nothing("queries, keys and values are not clipped in this family"),
    "use_bidirectional_attention": or_null(never("tokens attend to those before them only")),
    "initializer_range": number(0, 1),
    "pretraining_tp": or_null(whole(1, 1024)),
    "bos_token_id": or_null(either(_TOKEN, _LIST)),
    "eos_token_id": or_null(either(_TOKEN, _LIST)),
    "pad_token_id": or_null(whole(-1, 2**22)),  # -1: the first Llama's own
    "use_sliding_window": or_null(truth()),
    "sliding_window": or_null(whole(1, MOST_POSITIONS)),
    "sliding_window_pattern": or_null(whole(1, MOST_LAYERS)),
    "max_window_layers": or_null(whole(0, MOST_LAYERS)),
    "layer_types": or_null(list_of(name_of(LAYER_TYPES), MOST_LAYERS)),
    "no_rope_layers": or_null(list_of(whole(0, 1), MOST_LAYERS)),
    "no_rope_layer_interval": or_null(whole(1, MOST_LAYERS)),
    "attn_implementation": or_null(name_of(ATTENTIONS)),
    "_attn_implementation": or_null(name_of(ATTENTIONS)),
    "_attn_implementation_internal": or_null(name_of(ATTENTIONS)),
    "_attn_implementation_autoset": or_null(truth()),
    "_experts_implementation": or_null(name_of(("eager", "batched_mm", "grouped_mm"))),
    "dtype": or_null(name_of(DTYPES)),
    "torch_dtype": or_null(name_of(DTYPES)),
    "architectures": or_null(_NAMES),
    "auto_map": mapping(),
    "output_attentions": or_null(truth()),
    "output_hidden_states": or_null(truth()),
    "return_dict": or_null(truth()),
    "chunk_size_feed_forward": or_null(whole(0, 2**20)),
    "is_encoder_decoder": or_null(truth()),
    "id2label": or_null(mapping()),
    "label2id": or_null(mapping()),
    "num_labels": whole(0, 2**22),
    "problem_type": or_null(text()),
    "tokenizer_class": or_null(text()),
    "transformers_version": or_null(text()),
    "_name_or_path": or_null(text()),
    "name_or_path": or_null(text()),
}
ELSEWHERE: Mapping[str, str] = {  # would take weights or layers from where nothing here looks
    "transformers_weights": "the weights are read from model.safetensors or its index",
    "per_layer_config": "all layers have one shape here",
    "text_config": "the model has one configuration",
    "sub_configs": "the model has one configuration",
}
METHODS = frozenset((  # of transformers' configurations, and what they read, which a key of that name would hide
    "attribute_map", "base_model_ep_plan", "base_model_fsdp_plan", "base_model_pp_plan", "base_model_tp_plan",
    "ignore_keys_at_rope_validation",
    "convert_rope_params_to_dict", "default_config_fields", "dict_dtype_to_str", "from_dict", "from_json_file",
    "from_pretrained", "get_config_dict", "get_mtp_config", "get_text_config", "is_custom_code", "is_heterogeneous",
    "is_remote_code", "nested_rope_parameter_keys", "per_layer_attributes", "push_to_hub", "register_for_auto_class",
    "save_pretrained", "standardize_rope_params", "to_dict", "to_diff_dict", "to_json_file", "to_json_string", "update",
    "update_from_string", "use_return_dict", "validate", "validate_architecture", "validate_layer_type",
    "validate_output_attentions", "validate_rope", "validate_token_ids",
))  # fmt: skip
PRIVATE = re.compile(
    r"__.*|_(check|decode|dict_from|encode|get|getattr|hasattr|iter|remove|update|upload|validate)_.*", re.DOTALL
)


def configuration_faults(
    values: Mapping[str, Any], file: str, names: Mapping[str, str] | None = None, remedy: str | None = None
) -> list[ModelFault]:
    """Returns everything in a configuration that no Llama-like model can have, in the order of its keys.

    `names` are the file's own names for keys, where it has others. What the values mean together is checked once each
    holds by itself.
    """
    remedy = remedy or "Take config.json from where the model was published."
    broken = [*_single(values), *_rope(values), *_tokens(values)]
    if not broken:
        broken = [*_together(values)]
    if not broken:
        broken = [*_size(values)]
    own = names or {}
    return [ModelFault(file, own.get(key, key), value, rule, remedy) for key, value, rule in broken]


def _single(values: Mapping[str, Any]) -> Iterator[Broken]:
    for key, rule in REQUIRED.items():
        if broken := rule(values.get(key)):
            yield key, values.get(key), broken
    for key, rule in OPTIONAL.items():
        if key in values and (broken := rule(values[key])):
            yield key, values[key], broken
    for key, why in ELSEWHERE.items():
        if values.get(key):
            yield key, values[key], f"must be left out: {why}"
    family = FAMILIES[values["model_type"]]
    if values.get(family.activation_key, ACTIVATIONS[0]) is None:
        yield family.activation_key, None, str(_ACTIVATION(None))
    for key in family.never_null:
        if key in values and values[key] is None and not OPTIONAL[key](None):
            yield key, None, f"must not be null in a model of the type {values['model_type']}"
    for key in values:
        if key in METHODS or PRIVATE.fullmatch(key):
            yield key, values[key], "must not be a key: transformers has a method of that name"


def _rope(values: Mapping[str, Any]) -> Iterator[Broken]:
    hidden, heads = values.get("hidden_size"), values.get("num_attention_heads")
    head_dim = values.get("head_dim")
    if head_dim is None and is_whole(hidden) and is_whole(heads) and heads > 0:
        head_dim = hidden // heads
    return rope_faults(values, head_dim if is_whole(head_dim) else None)


def _tokens(values: Mapping[str, Any]) -> Iterator[Broken]:
    """Ids that the embedding has no row for."""
    rows = values.get("vocab_size")
    if not is_whole(rows):
        return
    pad = FAMILIES[values["model_type"]].defaults.get("pad_token_id")  # its row stays zero, so it must be one
    given_ids = {"pad_token_id": pad, **values}
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        given = given_ids.get(key)
        if any(is_whole(one) and rows <= one <= 2**22 for one in (given if isinstance(given, list) else [given])):
            null = ", or null" if key == "pad_token_id" else ""
            yield key, given, f"must be less than vocab_size, {rows:,}{null}"


def _together(values: Mapping[str, Any]) -> Iterator[Broken]:
    hidden, heads, layers = values["hidden_size"], values["num_attention_heads"], values["num_hidden_layers"]
    shared, head_dim = values.get("num_key_value_heads"), values.get("head_dim")
    if hidden % heads:
        yield "num_attention_heads", heads, f"must divide hidden_size, {hidden:,}"
    if shared is not None and heads % shared:
        yield "num_key_value_heads", shared, f"must divide num_attention_heads, {heads:,}"
    if (head_dim or hidden // heads) % 2:
        key, value = ("head_dim", head_dim) if head_dim else ("hidden_size", hidden)
        yield key, value, "must give each head an even size, whose halves rotate"
    for key in ("layer_types", "no_rope_layers"):
        if values.get(key) is not None and len(values[key]) != layers:
            yield key, f"{len(values[key])} values", f"must have a value for each of the {layers} layers"


def _size(values: Mapping[str, Any]) -> Iterator[Broken]:
    count = needed_tensors(values).parameter_count
    if count > MOST_PARAMETERS:
        rule = f"must give a model of at most {MOST_PARAMETERS:,} parameters; with the other sizes it has {count:,}"
        yield "hidden_size", values["hidden_size"], rule
