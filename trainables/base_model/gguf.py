"""Converts a `.gguf` file into a folder of safetensors, with its configuration and tokenizer.

The weights are written in bfloat16, whatever the file's own blocks: that is what Llama-like models are published
in, and every precision then starts from the same numbers, so that comparing two compares their arithmetic alone.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

CONVERTER_VERSION = 1  # part of the cache's key: raise it when the converted files change
SHARD_BYTES = 2 * 2**30

# llama.cpp stores the rotary halves of the first group's query and key weights interleaved.
_INTERLEAVED = ("llama", "mistral")
_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER_NAMES = {
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


def read_gguf_config(path: Path) -> dict[str, Any]:
    """Reads the file's configuration, in transformers' words, from its metadata alone.

    Raises ValueError (rule, value, remedy) for a file that is no GGUF, no Llama-like model, or that holds what a
    converted model would silently lack, such as scaled rotary frequencies.
    """
    return _config(_open(path))


def convert_gguf(path: Path, folder: Path) -> None:
    """Writes the file's model into `folder`: bfloat16 safetensors, `config.json` and the tokenizer.

    Raises ValueError as `read_gguf_config` does, and for a tensor that no Llama-like model has.
    """
    reader = _open(path)
    config = _config(reader)
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    _write_shards(_tensors(reader, config), folder)
    read_gguf_tokenizer(path).save_pretrained(str(folder))


def read_gguf_tokenizer(path: Path) -> Any:
    """Reads the file's own tokenizer, with its special tokens and chat template."""
    from transformers import PreTrainedTokenizerFast

    # Not AutoTokenizer: it reads the whole configuration once more, for the same result in ten times the time.
    return PreTrainedTokenizerFast.from_pretrained(str(path.parent), gguf_file=path.name)


def read_gguf_licence(path: Path) -> str | None:
    """Reads the licence that the file's metadata name; None where they name none."""
    licence = _value(_open(path), "general.license", None)
    return str(licence) if licence else None


def _open(path: Path) -> Any:
    try:
        return _skimming_reader()(str(path))
    except (ValueError, IndexError, KeyError, OverflowError, struct.error) as error:
        raise ValueError(
            f"{path} must be a whole GGUF file; it cannot be read ({error}). Download it again."
        ) from error


def _skimming_reader() -> Any:
    """Returns gguf's reader, except that it passes over arrays' items (a tokenizer's 100,000 texts) unread."""
    import gguf

    kinds, scalars = gguf.GGUFValueType, gguf.GGUFReader.gguf_scalar_to_np

    class SkimmingReader(gguf.GGUFReader):
        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if raw_type != kinds.ARRAY or self.byte_order == "S":
                return super()._get_field_parts(orig_offs, raw_type)
            item, count = struct.unpack_from("<IQ", self.data, orig_offs)
            begin = end = orig_offs + struct.calcsize("<IQ")
            if item == kinds.STRING:
                for _ in range(count):
                    end += 8 + struct.unpack_from("<Q", self.data, end)[0]
            elif kinds(item) in scalars:
                end += count * scalars[kinds(item)]().itemsize
            else:
                return super()._get_field_parts(orig_offs, raw_type)
            return end - orig_offs, [self.data[orig_offs:begin]], [], [kinds.ARRAY, kinds(item)]

    return SkimmingReader


def _config(reader: Any) -> dict[str, Any]:
    kind = _value(reader, "general.architecture")
    if kind not in _ARCHITECTURES:
        raise ValueError(
            f"a GGUF base model must be of the architecture {', '.join(_ARCHITECTURES)}; it is {kind!r}. "
            "Choose a Llama-like causal model."
        )
    names = {tensor.name for tensor in reader.tensors}
    _refuse_what_would_be_lost(reader, kind, names)
    shapes = {tensor.name: tuple(int(size) for size in reversed(tensor.shape)) for tensor in reader.tensors}
    heads = int(_value(reader, f"{kind}.attention.head_count"))
    hidden_size = int(_value(reader, f"{kind}.embedding_length"))
    config = {
        "model_type": kind,
        "architectures": [_ARCHITECTURES[kind]],
        "dtype": "bfloat16",
        "vocab_size": shapes["token_embd.weight"][0],
        "hidden_size": hidden_size,
        "intermediate_size": int(_value(reader, f"{kind}.feed_forward_length")),
        "num_hidden_layers": int(_value(reader, f"{kind}.block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(_value(reader, f"{kind}.attention.head_count_kv", heads)),
        "head_dim": shapes["blk.0.attn_q.weight"][0] // heads,
        "max_position_embeddings": int(_value(reader, f"{kind}.context_length")),
        "rms_norm_eps": float(_value(reader, f"{kind}.attention.layer_norm_rms_epsilon")),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": float(_value(reader, f"{kind}.rope.freq_base", 10000.0)),
        },
        "tie_word_embeddings": "output.weight" not in names,
        "bos_token_id": _value(reader, "tokenizer.ggml.bos_token_id", None),
        "eos_token_id": _value(reader, "tokenizer.ggml.eos_token_id", None),
        "pad_token_id": _value(reader, "tokenizer.ggml.padding_token_id", None),
    }
    if kind == "llama" and "blk.0.attn_q.bias" in names:
        config["attention_bias"] = True
    return config


def _refuse_what_would_be_lost(reader: Any, kind: str, names: set[str]) -> None:
    scaling = _value(reader, f"{kind}.rope.scaling.type", "none")
    if "rope_freqs.weight" in names or scaling not in ("none", ""):
        raise ValueError(
            "a GGUF base model must have plain rotary positions; this one scales them (as Llama 3.1 and later do). "
            "Give the model's safetensors folder or hub id instead."
        )
    unknown = sorted(name for name in names if _module_name(name) is None)
    if unknown:
        raise ValueError(
            f"a GGUF base model must hold only a Llama-like model's tensors; it has {len(unknown)} others, such as "
            f"{unknown[0]!r}. Choose a dense Llama-like model."
        )
    missing = [name for name in ("token_embd.weight", "blk.0.attn_q.weight") if name not in names]
    if missing:
        raise ValueError(f"a GGUF base model must hold {missing[0]!r}; it does not. Choose a whole model, not a part.")


_NO_DEFAULT = object()


def _value(reader: Any, key: str, default: Any = _NO_DEFAULT) -> Any:
    field = reader.get_field(key)
    if field is not None:
        return field.contents()
    if default is _NO_DEFAULT:
        raise ValueError(f"a GGUF base model must state {key!r}; it does not. Choose another file of the model.")
    return default


def _module_name(name: str) -> str | None:
    """Returns the tensor's name in transformers, or None where no Llama-like model has it."""
    match = re.fullmatch(r"(?:blk\.(?P<layer>\d+)\.)?(?P<part>\w+)\.(?P<suffix>weight|bias)", name)
    if match is None:
        return None
    if match["layer"] is None:
        return f"{_NAMES[match['part']]}.{match['suffix']}" if match["part"] in _NAMES else None
    part = _LAYER_NAMES.get(match["part"])
    return part and f"model.layers.{match['layer']}.{part}.{match['suffix']}"


def _tensors(reader: Any, config: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    import numpy as np
    import torch
    from gguf import dequantize

    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for tensor in reader.tensors:
        values = dequantize(np.asarray(tensor.data), tensor.tensor_type)  # a plain array: memmap's slices are slow
        part = tensor.name.split(".")[-2]
        if config["model_type"] in _INTERLEAVED and part in heads:
            values = _rotary_halves(values, heads[part])
        contiguous = np.array(values, dtype=np.float32)  # a copy: the file is mapped read-only
        yield str(_module_name(tensor.name)), torch.from_numpy(contiguous).to(torch.bfloat16)


def _rotary_halves(values: np.ndarray, heads: int) -> np.ndarray:
    """Moves rows paired as (0, 1), (2, 3), … of every head back to the halves that transformers rotates."""
    paired = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return paired.swapaxes(1, 2).reshape(values.shape)


def _write_shards(tensors: Iterator[tuple[str, torch.Tensor]], folder: Path) -> None:
    """Writes the tensors in files of about `SHARD_BYTES`, never holding more than one of them in memory."""
    weight_map: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    total = held = 0
    for name, tensor in tensors:
        if held and held + tensor.nbytes > SHARD_BYTES:
            _write_shard(shard, weight_map, folder)
            shard, held = {}, 0
        shard[name] = tensor
        held += tensor.nbytes
        total += tensor.nbytes
    _write_shard(shard, weight_map, folder)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _write_shard(shard: dict[str, torch.Tensor], weight_map: dict[str, str], folder: Path) -> None:
    from safetensors.torch import save_file

    name = f"model-{len(set(weight_map.values())) + 1:05d}.safetensors"
    save_file(shard, folder / name, metadata={"format": "pt"})
    weight_map.update(dict.fromkeys(shard, name))
