"""Small random decoders of families without a form, adapters over all their linear layers, and PEFT's twins of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from tests.support.lora_cases import lora_config
from trainables.packed.adapter import LoraAdapter, LoraWeights, initial_weights
from trainables.packed.packed_model import PackedModel

_USUAL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 97,
    "max_position_embeddings": 128,
    "attn_implementation": "sdpa",
}
_WITHOUT_DROPOUT = {"attention_dropout": 0.0, "hidden_dropout": 0.0}
DECODERS: dict[str, dict[str, Any]] = {  # by `model_type`: what a small one needs beside the usual
    "gpt_neox": {**_WITHOUT_DROPOUT, "num_key_value_heads": None},
    "stablelm": {"use_qkv_bias": True},
    "cohere": {"logit_scale": 0.3, "use_qk_norm": True},
    "starcoder2": {"residual_dropout": 0.0, "embedding_dropout": 0.0},
    "olmo": {"clip_qkv": 0.5},
    "phi": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "num_key_value_heads": None},
    "gemma": {"head_dim": 16, "hidden_activation": "gelu_pytorch_tanh"},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 16, "dropout": 0.0, "num_key_value_heads": None},
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2, "num_key_value_heads": None},
}
MIXTURES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 24},
}


def small_decoder(model_type: str, **changes: Any) -> Any:
    """A frozen causal model with random weights, equal at every call."""
    values = {**_USUAL, **DECODERS.get(model_type, MIXTURES.get(model_type, {})), **changes}
    values = {name: value for name, value in values.items() if value is not None}
    attention = values.pop("attn_implementation")
    special = {"pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(model_type, **special, **values)
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    for name, parameter in model.named_parameters():  # so that no bias is 0, and each norm's scale is its own
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
        elif "embed" in name:
            parameter.data *= 20
    torch.random.set_rng_state(state)
    return model.requires_grad_(False).eval()


def adapter_over(model: PackedModel, names: Sequence[str] | None = None, seed: int = 3, **changes: Any) -> LoraAdapter:
    """An adapter whose A and B are both random, over the layers `names`; over all where it is None."""
    config = lora_config(seed=seed, **changes)
    draw = torch.Generator().manual_seed(seed)
    weights = {}
    for name in names or model.linears:
        pair = initial_weights(model.linears[name].base, name, config)
        weights[name] = LoraWeights(pair.a, nn.Parameter(0.2 * torch.randn(pair.b.shape, generator=draw).to(pair.b)))
    return LoraAdapter(config, weights)


def twin_of(adapter: LoraAdapter, base: nn.Module) -> nn.Module:
    """The same adapter over another copy of the base, by PEFT's own layers, in training and without dropout."""
    config = adapter.config
    lora = LoraConfig(
        r=config.rank, lora_alpha=config.lora_alpha, lora_dropout=0.0, target_modules=list(adapter.weights),
        task_type="CAUSAL_LM",
    )  # fmt: skip
    twin = get_peft_model(base, lora)
    for name, pair in adapter.weights.items():
        layer = twin.get_submodule(f"base_model.model.{name}")
        layer.lora_A["default"].weight.data.copy_(pair.a)
        layer.lora_B["default"].weight.data.copy_(pair.b)
    return twin.train()


def twins_gradients(twin: nn.Module, adapter: LoraAdapter) -> list[torch.Tensor]:
    """The gradients of PEFT's weights, in the order of the adapter's parameters."""
    layers = [twin.get_submodule(f"base_model.model.{name}") for name in adapter.weights]
    return [weights["default"].weight.grad for layer in layers for weights in (layer.lora_A, layer.lora_B)]
