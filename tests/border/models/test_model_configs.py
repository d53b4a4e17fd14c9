"""Configurations that no Llama-like model can have: refused key by key before anything is built from them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.border.hostile import Hostile, table
from tests.support.trainables.hostile_models import Maker, content, in_folder, plan_changed

ABSENT = object()
WHOLE_NUMBER = "must be a whole number from"
TYPES = "default, linear, dynamic, llama3, yarn, longrope"


def values(**changes: Any) -> Maker:
    """Returns a maker whose model has another configuration, and weights still of the earlier one."""

    def damage(base: Path) -> None:
        good = json.loads((base / "config.json").read_text(encoding="utf-8"))
        changed = {key: value for key, value in {**good, **changes}.items() if value is not ABSENT}
        (base / "config.json").write_text(json.dumps(changed), encoding="utf-8")

    return plan_changed(damage)


def row(name: str, *words: str, most_lines: int = 12, **changes: Any) -> Hostile:
    return Hostile(name, values(**changes), ("config.json", *words), most_lines=most_lines)


@table(
    row("a million layers", "num_hidden_layers = 1000000", WHOLE_NUMBER, "to 1,000", num_hidden_layers=10**6),
    row("no layer", "num_hidden_layers = 0", WHOLE_NUMBER, num_hidden_layers=0),
    row("2^62 wide", "hidden_size = 4611686018427387904", WHOLE_NUMBER, hidden_size=2**62),
    row("10^400 wide", "hidden_size = 1000", WHOLE_NUMBER, "…", hidden_size=10**400),
    row("-8 wide", "hidden_size = -8", WHOLE_NUMBER, hidden_size=-8),
    row("a width of text", 'hidden_size = "32"', WHOLE_NUMBER, hidden_size="32"),
    row("a width of 32.0", "hidden_size = 32.0", WHOLE_NUMBER, hidden_size=32.0),
    row("a true width", "hidden_size = true", WHOLE_NUMBER, hidden_size=True),
    row("a null width", "hidden_size = null", WHOLE_NUMBER, hidden_size=None),
    row("a width of NaN", "hidden_size = NaN", WHOLE_NUMBER, hidden_size=math.nan),
    row("a list of widths", "hidden_size = [32]", WHOLE_NUMBER, hidden_size=[32]),
    row("a nested width", "hidden_size = {", WHOLE_NUMBER, hidden_size={"a": {"b": 1}}),
    row("no width", "hidden_size = null", WHOLE_NUMBER, hidden_size=ABSENT),
    row("no vocabulary", "vocab_size = 0", WHOLE_NUMBER, vocab_size=0),
    row("2^40 tokens", "vocab_size = 1099511627776", WHOLE_NUMBER, vocab_size=2**40),
    row("no MLP", "intermediate_size = 0", WHOLE_NUMBER, intermediate_size=0),
    row("no heads", "num_attention_heads = 0", WHOLE_NUMBER, num_attention_heads=0),
    row("heads that do not divide", "num_attention_heads = 5", "must divide hidden_size, 32", num_attention_heads=5),
    row("no shared heads", "num_key_value_heads = 0", WHOLE_NUMBER, num_key_value_heads=0),
    row("shared heads in thirds", "num_key_value_heads = 3", "must divide num_attention", num_key_value_heads=3),
    row("more shared heads", "num_key_value_heads = 8", "must divide num_attention_heads, 4", num_key_value_heads=8),
    row("heads of no size", "head_dim = 0", WHOLE_NUMBER, head_dim=0),
    row("heads of odd size", "head_dim = 7", "even size", head_dim=7),
    row("heads of -2", "head_dim = -2", WHOLE_NUMBER, head_dim=-2),
    row("half of each head rotates", "partial_rotary_factor = 0.5", "must be 1, or null", partial_rotary_factor=0.5),
    row("a norm without epsilon", "rms_norm_eps = 0", "must be a number from 1e-30", rms_norm_eps=0),
    row("any type", 'dtype = "auto"', "must be one of float16, bfloat16", dtype="auto"),
    row("no positions", "max_position_embeddings = 0", WHOLE_NUMBER, max_position_embeddings=0),
    row("2^60 positions", "max_position_embeddings = 11", WHOLE_NUMBER, max_position_embeddings=2**60),
    row("a negative epsilon", "rms_norm_eps = -1", "must be a number from 1e-30", rms_norm_eps=-1),
    row("an epsilon of text", 'rms_norm_eps = "1e-5"', "must be a number from 1e-30", rms_norm_eps="1e-5"),
    row("an infinite epsilon", "rms_norm_eps = Infinity", "must be a number from 1e-30", rms_norm_eps=math.inf),
    row("nothing that holds it", "at most 2,000,000,000,000 parameters", hidden_size=2**18, intermediate_size=2**21,
        num_hidden_layers=1000, num_attention_heads=1024, num_key_value_heads=1024, head_dim=256),
)  # fmt: skip
def test_sizes_without_sense_are_refused(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


@table(
    row("an unknown activation", "hidden_act", '"snake"', "silu", hidden_act="snake"),
    row("an activation with weights", "hidden_act", '"prelu"', "silu", hidden_act="prelu"),
    row("an activation of code", "hidden_act", "must be one of", hidden_act="__import__('os')"),
    row("a null activation", "hidden_act", "must be one of", hidden_act=None),
    row("an unknown attention", "attn_implementation", "sdpa", attn_implementation="warp"),
    row("a hub's kernel", "_attn_implementation", "sdpa", _attn_implementation="owner/kernel"),
    row("an unknown dtype", "dtype", "bfloat16", dtype="float8_wide"),
    row("a dtype of torch's", "torch_dtype", "bfloat16", torch_dtype="nn.Module"),
    row("a nested dtype", "dtype", "bfloat16", dtype={"": "float32"}),
    row("a bias of text", "attention_bias", "must be true or false", attention_bias="no"),
    row("a tie of 1", "tie_word_embeddings", "must be true or false", tie_word_embeddings=1),
    row("a null tie", "tie_word_embeddings", "must be true or false", tie_word_embeddings=None),
    row("a cache of text", "use_cache", "must be true or false", use_cache="yes"),
    row("a pad token beyond", "pad_token_id = 97", "must be less than vocab_size, 97", pad_token_id=97),
    row("an end beyond", "eos_token_id = 5000", "must be less than vocab_size", eos_token_id=5000),
    row("one of the ends beyond", "eos_token_id = [1, 99]", "must be less than vocab_size", eos_token_id=[1, 99]),
    row("a negative end", "eos_token_id = -5", WHOLE_NUMBER, eos_token_id=-5),
    row("a begin of text", "bos_token_id", WHOLE_NUMBER, bos_token_id="<s>"),
    row("nested ends", "eos_token_id", WHOLE_NUMBER, eos_token_id=[[1]]),
    row("a pad of -7", "pad_token_id = -7", WHOLE_NUMBER, pad_token_id=-7),
    row("layer types too few", "layer_types", "each of the 2 layers", layer_types=["full_attention"]),
    row("layer types unknown", "layer_types", "full_attention", layer_types=["mamba", "full_attention"]),
    row("layer types of text", "layer_types", "must be a list", layer_types="full_attention"),
    row("no window", "sliding_window = 0", WHOLE_NUMBER, sliding_window=0),
    row("weights elsewhere", "transformers_weights", "must be left out", transformers_weights="other.safetensors"),
    row("layers apart", "per_layer_config", "must be left out", per_layer_config={"0": {"hidden_size": 8}}),
    row("labels of text", "id2label", "must be a mapping", id2label="no"),
    row("a method's name", "to_json_file = 5", "a method of that name", to_json_file=5),
    row("a method that builds", "to_dict = 5", "a method of that name", to_dict=5),
    row("dropout of 2", "attention_dropout = 2", "must be a number from 0 to 1", attention_dropout=2),
    row("dropout of text", "attention_dropout", "must be a number from 0 to 1", attention_dropout="0.1"),
)
def test_names_and_ids_without_sense_are_refused(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


def rope(name: str, *words: str, scaling: Any = None, **parameters: Any) -> Hostile:
    changes = {"rope_scaling": scaling} if scaling is not None else {"rope_parameters": parameters}
    return row(name, *words, **changes)


YARN, LLAMA3 = {"rope_type": "yarn", "factor": 4.0}, {"rope_type": "llama3", "factor": 8.0}


@table(
    rope("an unknown type", "rope_scaling.type", '"su"', TYPES, scaling={"type": "su", "factor": 2.0}),
    rope("an unknown newer type", "rope_scaling.rope_type", TYPES, scaling={"rope_type": "x"}),
    rope("a number for a type", "rope_scaling.rope_type", TYPES, scaling={"rope_type": 5}),
    rope("a list for a type", "rope_scaling.rope_type", TYPES, scaling={"rope_type": ["yarn"]}),
    rope("a text", "rope_scaling", "must be a mapping", scaling="yarn"),
    rope("a list", "rope_scaling", "must be a mapping", scaling=[1]),
    rope("true", "rope_scaling", "must be a mapping", scaling=True),
    rope("no factor", "rope_scaling.factor", "must be given for the rotary", scaling={"type": "linear"}),
    rope("a factor of text", "rope_scaling.factor", "must be a number", scaling={"type": "linear", "factor": "2"}),
    rope("a factor of 0", "rope_scaling.factor", "must be a number from 1", scaling={"type": "dynamic", "factor": 0}),
    rope("a factor of NaN", "factor", "must be a number", scaling={"type": "linear", "factor": math.nan}),
    rope("a true factor", "factor", "must be a number", scaling={"type": "linear", "factor": True}),
    rope("no frequencies", "low_freq_factor", "must be given", rope_theta=5e5, **LLAMA3),
    rope("equal frequencies", "high_freq_factor", "must be greater", low_freq_factor=1, high_freq_factor=1, **LLAMA3),
    rope("a negative frequency", "low_freq_factor", "must be", low_freq_factor=-1, high_freq_factor=4, **LLAMA3),
    rope("betas in turn", "beta_fast", "must be greater than beta_slow", beta_fast=1, beta_slow=32, **YARN),
    rope("a beta of text", "beta_fast", "must be a number", beta_fast="32", **YARN),
    rope("a negative original", "original_max", "whole number", original_max_position_embeddings=-1, **YARN),
    rope("no long factors", "long_factor", "must be given", rope_type="longrope", short_factor=[1.0] * 4),
    rope("short factors", "short_factor", "each half of a head, 4", rope_type="longrope", short_factor=[1.0],
         long_factor=[1.0] * 4),
    rope("factors of text", "short_factor", "must be a list", rope_type="longrope", short_factor="1", long_factor=[1]),
    rope("theta 0", "rope_parameters.rope_theta = 0", "must be a number", rope_type="default", rope_theta=0),
    rope("theta of text", "rope_theta", "must be a number", rope_type="default", rope_theta="1e4"),
    rope("infinite theta", "rope_theta", "must be a number", rope_type="default", rope_theta=math.inf),
    rope("half heads", "partial_rotary_factor", "must be 1, or null", rope_type="default", partial_rotary_factor=0.5),
    rope("nested by layers", "full_attention", "must not be nested", full_attention={"rope_type": "default"}),
    row("a plain theta of -1", "rope_theta = -1", "must be a number", rope_theta=-1),
)  # fmt: skip
def test_rotary_positions_without_sense_are_refused(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)


@table(
    row("a path for a type", "must be a decoder of transformers", "'../gpt2'", model_type="../gpt2"),
    row("a type of 5,000 letters", "must be a decoder of transformers", "…", model_type="x" * 5000),
    row("a type of a number", "must be a decoder of transformers", model_type=7),
    row("a list of types", "must be a decoder of transformers", model_type=["llama"]),
    row("no type", "must be a decoder of transformers", model_type=ABSENT),
    row("a million layers of another type", "n_layer = 1000000", "at most 1,000", model_type="gpt2", n_layer=10**6),
    row("a model of several", "made of several (text_config)", model_type="gemma3", text_config={"hidden_size": 8}),
    row("a classifier", "must be a causal language model", architectures=["LlamaForSequenceClassification"]),
    row("architectures of text", "must be a causal language model", architectures="LlamaForSequence"),
    row("quantized", "must not be quantized already", "(awq)", quantization_config={"quant_method": "awq"}),
    row("quantized by a list", "must not be quantized already", quantization_config=[1]),
    row("quantized by a number", "must not be quantized already", quantization_config=4),
    row("quantized by true", "must not be quantized already", quantization_config=True),
    row("five faults", "hidden_size = -1", "vocab_size = 0", 'hidden_act = "x"', "rms_norm_eps = 9", 'type = "su"',
        hidden_size=-1, vocab_size=0, hidden_act="x", rms_norm_eps=9, rope_scaling={"type": "su"}),
    row("another shape", "must have the shape that config.json asks for", "97 x 64", hidden_size=64, head_dim=8),
    row("a layer less", "9 are not, and would be dropped", num_hidden_layers=1, layer_types=ABSENT),
    Hostile("a list", content("config.json", b"[]"), ("must be the model's configuration", "a list")),
    Hostile("null", content("config.json", b"null"), ("must be the model's configuration",)),
    Hostile("no JSON", content("config.json", b"{"), ("must hold JSON",)),
    Hostile("nothing", content("config.json", b""), ("an empty file",)),
    Hostile("no UTF-8", content("config.json", b'{"a": "\xff"}'), ("must be text in UTF-8",)),
    Hostile("deep", content("config.json", b"[" * 99_999 + b"]" * 99_999), ("must hold JSON", "deep")),
    Hostile("2 MiB", content("config.json", b'{"a": "' + b"x" * 2**21 + b'"}'), ("must hold at most 1 MiB",)),
    Hostile("a page", content("config.json", b"<html>"), ("an HTML page",)),
    Hostile("a pipe", in_folder("config.json", os.mkfifo), ("a named pipe",)),
    Hostile("a device", in_folder("config.json", lambda path: path.symlink_to("/dev/zero")), ("a device",)),
    Hostile("generation of a list", content("generation_config.json", b"[]"), ("must be a mapping in JSON",)),
    Hostile("generation of no JSON", content("generation_config.json", b"{"), ("must hold JSON",)),
    Hostile("a pipe for generation", in_folder("generation_config.json", os.mkfifo), ("a named pipe",)),
)  # fmt: skip
def test_a_configuration_that_is_none_is_refused(hostile: Hostile, check: Callable[[Hostile], str]) -> None:
    check(hostile)
