"""Reads a GGUF file's configuration in transformers' words, and checks it, and that its tensors are all there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainables.base_model.checks.configuration import configuration_faults
from trainables.base_model.checks.faults import ModelFault, raise_any, whole_file
from trainables.base_model.checks.gguf_header import GgufHeader, place_faults, read_gguf_header
from trainables.base_model.checks.tensors import needed_tensors, tensor_faults
from trainables.base_model.checks.values import is_whole
from trainables.shown_values import shortened

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CHOOSE = "Download it again, or choose another conversion of the model."
ORIGINAL = "Give the original model instead, as a folder of safetensors or a hub id: more architectures are read there."
MERGE = "Merge the parts with gguf-split --merge FIRST_PART WHOLE.gguf (llama.cpp), and give the whole file."
_PART = re.compile(r".*-(?P<part>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_KEYS = {  # transformers' names: the file's, after its architecture
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
_TOKENS = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}


def read_gguf_config(path: Path) -> dict[str, Any]:
    """Reads the configuration of the file's model, and checks all that its header says.

    Raises BaseModelError with every fault: a part of a split file, what no Llama-like model has, numbers without sense,
    tensors that are missing, of another shape or beyond the file's end, and what a converted model would lack.
    """
    header = read_gguf_header(path)
    raise_any(_part_faults(path, header))
    raise_any(_kind_faults(path, header))
    values = _values(header)
    kind = values["model_type"]
    names = {key: f"{kind}.{own}" for key, own in _KEYS.items()}
    names |= {key: f"tokenizer.ggml.{own}_token_id" for key, own in _TOKENS.items()}
    names |= {"vocab_size": "token_embd.weight", "head_dim": "blk.0.attn_q.weight"}
    names |= {"rope_parameters.rope_theta": f"{kind}.rope.freq_base"}
    raise_any(configuration_faults(values, str(path), names, CHOOSE))
    raise_any([*place_faults(header, path, _blocks(header)), *_tensor_faults(path, header, values)])
    return values


def gguf_licence(path: Path) -> str | None:
    """Reads the licence that the file's metadata name; None where they name none, or cannot be read."""
    try:
        licence = read_gguf_header(path).metadata.get("general.license")
    except ValueError:
        return None
    return str(licence) if licence else None


def module_name(name: str) -> str | None:
    """Returns the tensor's name in transformers, or None where no Llama-like model has it."""
    match = re.fullmatch(r"(?:blk\.(?P<layer>\d{1,4})\.)?(?P<part>\w+)\.(?P<suffix>weight|bias)", name)
    if match is None:
        return None
    if match["layer"] is None:
        return f"{NAMES[match['part']]}.{match['suffix']}" if match["part"] in NAMES else None
    part = LAYER_NAMES.get(match["part"])
    return part and f"model.layers.{match['layer']}.{part}.{match['suffix']}"


def part_of(path: Path) -> tuple[int, int] | None:
    """Returns which part of how many the file's name says it is; None where it says nothing, or one of one."""
    match = _PART.fullmatch(path.name)
    if match is None or int(match["count"]) <= 1:
        return None
    return int(match["part"]), int(match["count"])


def _part_faults(path: Path, header: GgufHeader) -> Iterator[ModelFault]:
    count, named = header.metadata.get("split.count"), part_of(path)
    if is_whole(count) and count > 1:
        number = header.metadata.get("split.no")
        part = f"part {number + 1} of {count}" if is_whole(number) else f"one of {count} parts"
        yield whole_file(path, f"{part} of a split GGUF file", "must be a whole GGUF file", MERGE)
    elif named is not None and count is None and "token_embd.weight" not in header.tensors:
        words = f"part {named[0]} of {named[1]} of a split GGUF file, by its name"
        yield whole_file(path, words, "must be a whole GGUF file", MERGE)


def _kind_faults(path: Path, header: GgufHeader) -> Iterator[ModelFault]:
    """What is no Llama-like model's, and what a converted model would silently lack."""
    file, kind = str(path), header.metadata.get("general.architecture")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        rule = (
            f"a GGUF base model must be of the architecture {', '.join(ARCHITECTURES)}; it is {shortened(repr(kind))}"
        )
        yield ModelFault(file, "general.architecture", kind, rule, ORIGINAL)
        return
    scaling = header.metadata.get(f"{kind}.rope.scaling.type", "none")
    if "rope_freqs.weight" in header.tensors or scaling not in ("none", ""):
        rule = "a GGUF base model must have plain rotary positions; this one scales them (as Llama 3.1 and later do)"
        remedy = "Give the model's safetensors folder or hub id instead."
        yield ModelFault(file, f"{kind}.rope.scaling.type", scaling, rule, remedy)
    unknown = sorted(name for name in header.tensors if module_name(name) is None and name != "rope_freqs.weight")
    if unknown:
        rule = (
            f"a GGUF base model must hold only a Llama-like model's tensors; it has {len(unknown)} others, such as "
            f"{shortened(unknown[0])!r}"
        )
        yield ModelFault(file, "tensor", shortened(unknown[0]), rule, "Choose a dense Llama-like model.")
    yield from (
        ModelFault(file, name, "missing", f"a GGUF base model must hold {name!r}", f"Choose a whole model. {CHOOSE}")
        for name in ("token_embd.weight", "blk.0.attn_q.weight")
        if name not in header.tensors
    )


def _values(header: GgufHeader) -> dict[str, Any]:
    """The configuration, in transformers' words; what the file does not state is None, or its own default."""
    stated = header.metadata
    kind = stated["general.architecture"]
    shapes = {name: tensor.shape for name, tensor in header.tensors.items()}
    values = {key: stated.get(f"{kind}.{own}") for key, own in _KEYS.items()}
    heads = values["num_attention_heads"]
    if values["num_key_value_heads"] is None:
        values["num_key_value_heads"] = heads
    queries = shapes["blk.0.attn_q.weight"][0]
    return {
        "model_type": kind,
        "architectures": [ARCHITECTURES[kind]],
        "dtype": "bfloat16",
        "vocab_size": shapes["token_embd.weight"][0],
        **values,
        "head_dim": queries // heads if is_whole(heads) and heads > 0 else None,
        "rope_parameters": {"rope_type": "default", "rope_theta": stated.get(f"{kind}.rope.freq_base", 10000.0)},
        "tie_word_embeddings": "output.weight" not in shapes,
        **{key: stated.get(f"tokenizer.ggml.{own}_token_id") for key, own in _TOKENS.items()},
        **({"attention_bias": True} if kind == "llama" and "blk.0.attn_q.bias" in shapes else {}),
    }


def _tensor_faults(path: Path, header: GgufHeader, values: Mapping[str, Any]) -> Iterator[ModelFault]:
    """What the configuration asks for and the file does not hold so, by the file's own names."""
    found = {str(module_name(name)): tensor.shape for name, tensor in header.tensors.items()}
    own = {str(module_name(name)): name for name in header.tensors}
    named = part_of(path)
    for fault in tensor_faults(found, needed_tensors(values), str(path)):
        key = own.get(fault.key, fault.key)
        value = own.get(fault.value, fault.value) if isinstance(fault.value, str) else fault.value
        rule = fault.rule.replace("config.json asks", "the file's metadata ask")
        yield ModelFault(fault.file, key, value, rule, MERGE if named else CHOOSE)


def _blocks(header: GgufHeader) -> dict[int, tuple[int, int]]:
    """Values and bytes in one block of each of the file's types that can be read, by the type's number."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES, dequantize

    found = {}
    for kind, (values, size) in GGML_QUANT_SIZES.items():
        if int(kind) in {tensor.kind for tensor in header.tensors.values()}:
            try:
                dequantize(np.zeros((1, size), dtype=np.uint8), kind)
            except NotImplementedError:
                continue
            found[int(kind)] = (values, size)
    return found
