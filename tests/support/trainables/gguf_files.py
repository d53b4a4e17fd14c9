"""Small models as GGUF files, written as llama.cpp's converter does, and with other metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM

from trainables.base_model.checks import gguf_model

ABSENT = object()  # as a field: it is left out
TEMPLATE = "{% for message in messages %}<s>{{ message['content'] }}</s>{% endfor %}"
TOKENS = [*sorted(ByteLevel.alphabet()), "<s>", "</s>", "th", "he", "Ġt", "Ġth"]
MERGES = ["t h", "h e", "Ġ t", "Ġt h"]

TO_GGUF = {hf: ours for ours, hf in gguf_model.NAMES.items()}
LAYER_TO_GGUF = {hf: ours for ours, hf in gguf_model.LAYER_NAMES.items()}


def small_llama() -> LlamaForCausalLM:
    """A Llama with random weights, whose vocabulary is `TOKENS`; equal at every call."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=2,
        vocab_size=len(TOKENS), max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 5e4},
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():  # norms too: ones would hide a mistake
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def _interleave(values: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp's convert_hf_to_gguf.py does to query and key weights."""
    return values.reshape(heads, 2, values.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(values.shape)


def _gguf_name(name: str) -> str:
    module, suffix = name.rsplit(".", 1)
    if not module.startswith("model.layers."):
        return f"{TO_GGUF[module]}.{suffix}"
    _, _, layer, part = module.split(".", 3)
    return f"blk.{layer}.{LAYER_TO_GGUF[part]}.{suffix}"


def write_gguf(
    path: Path,
    model: LlamaForCausalLM,
    kind: str = "llama",
    q8: bool = False,
    fields: Mapping[str, Any] | None = None,
    **extra: Any,
) -> Path:
    """Writes the model as llama.cpp's converter does; `fields` replace the metadata, and leave out what is ABSENT."""
    config, writer = model.config, gguf.GGUFWriter(str(path), kind)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _write_tokenizer(writer)
    if "scaling" in extra:
        writer.add_rope_scaling_type(extra["scaling"])
    for name, tensor in model.state_dict().items():
        values = tensor.numpy()
        if "q_proj" in name or "k_proj" in name:
            values = _interleave(values, config.num_attention_heads if "q_proj" in name else config.num_key_value_heads)
        if q8 and values.ndim == 2:
            block = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(_gguf_name(name), gguf.quantize(values, block), raw_dtype=block)
        else:
            writer.add_tensor(_gguf_name(name), np.ascontiguousarray(values))
    if "tensor" in extra:
        writer.add_tensor(extra["tensor"], np.ones(4, dtype=np.float32))
    _replace_fields(writer, fields or {})
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _replace_fields(writer: gguf.GGUFWriter, fields: Mapping[str, Any]) -> None:
    for key, value in fields.items():
        writer.kv_data[0].pop(key, None)
        if value is not ABSENT:
            kind = (
                gguf.GGUFValueType.UINT32
                if type(value) is int and value >= 2**31
                else gguf.GGUFValueType.get_type(value)
            )
            writer.kv_data[0][key] = gguf.gguf_writer.GGUFValue(value, kind)


def _write_tokenizer(writer: gguf.GGUFWriter) -> None:
    control = {"<s>", "</s>"}
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3 if token in control else 1 for token in TOKENS])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(TOKENS.index("<s>"))
    writer.add_eos_token_id(TOKENS.index("</s>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
