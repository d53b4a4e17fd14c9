"""Makes Llama models of a given shape with random weights, on the device that they are measured on."""

from __future__ import annotations

from typing import Any

import bitsandbytes
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from search_spaces.trial_config import MODULE_NAMES

SHAPES: dict[str, dict[str, Any]] = {
    "llama-3-8b": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
    },
    "smollm2-135m": {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192, "tie_word_embeddings": True,
    },
    "tiny": {
        "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 2048,
    },
}  # fmt: skip

Weights = dict[str, nn.Parameter]


def random_weights(shape: str, device: torch.device, dtype: torch.dtype, nf4: bool) -> Weights:
    """All weights of a model by name; with `nf4`, those of its linear layers in NF4 with double quantization."""
    generator = torch.Generator(device=device).manual_seed(0)
    weights: Weights = {}
    for name, parameter in _skeleton(shape).named_parameters():
        if parameter.dim() == 1:
            value = torch.ones(parameter.shape, dtype=dtype, device=device)
        else:
            value = torch.empty(parameter.shape, dtype=dtype, device=device).normal_(0, 0.02, generator=generator)
        weights[name] = nn.Parameter(value, requires_grad=False)
        if nf4 and _is_linear(name):
            weights[name] = bitsandbytes.nn.Params4bit(value, quant_type="nf4", compress_statistics=True).to(device)
    return weights


def assemble(shape: str, weights: Weights, device: torch.device, dtype: torch.dtype) -> LlamaForCausalLM:
    """A frozen model that holds these very weights: several models may share them."""
    model = _skeleton(shape)
    model.model.rotary_emb = LlamaRotaryEmbedding(model.config).to(device)
    for name, parameter in weights.items():
        path, _, leaf = name.rpartition(".")
        module = model.get_submodule(path)
        if isinstance(parameter, bitsandbytes.nn.Params4bit):
            module = _linear_4bit(module, dtype)
            parent, _, own = path.rpartition(".")
            setattr(model.get_submodule(parent), own, module)
        setattr(module, leaf, parameter)
    model.tie_weights()
    model.config.use_cache = False
    return model.requires_grad_(False).train()


def _linear_4bit(like: nn.Linear, dtype: torch.dtype) -> nn.Module:
    layer = bitsandbytes.nn.Linear4bit(
        like.in_features, like.out_features, bias=False, compute_dtype=dtype, quant_type="nf4", device="meta"
    )
    layer.support_avx512bf16_for_cpu = False  # repacks weights in place, and backward passes do not know
    return layer


def _is_linear(name: str) -> bool:
    return name.removesuffix(".weight").rsplit(".", 1)[-1] in MODULE_NAMES


def _skeleton(shape: str) -> LlamaForCausalLM:
    with torch.device("meta"):
        return LlamaForCausalLM(LlamaConfig(**SHAPES[shape], attn_implementation="sdpa"))
