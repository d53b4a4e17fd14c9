"""Tiny models of every family with a form, every part of it at work, with random weights."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 61, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
WINDOW, FEW_TOKENS = 5, 8  # of a sliding window; beyond the latter longrope takes its long factors
_GEMMA = {"head_dim": 12, "query_pre_attn_scalar": 20, "attention_bias": True, "sliding_window": WINDOW}
_BIASED = {"attention_bias": True, "mlp_bias": True}
_LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
_LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10_000.0, "partial_rotary_factor": 0.75, "short_factor": [1.0, 1.5, 2.0],
    "long_factor": [2.0, 3.0, 5.0],
}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any]]] = {  # by name: the model's type, and what it has beside `SIZES`
    "llama": ("llama", {"rope_parameters": _LLAMA3}),
    "llama biased": ("llama", {**_BIASED, "head_dim": 12}),
    "mistral": ("mistral", {"sliding_window": WINDOW, "head_dim": 12}),
    "qwen2": ("qwen2", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}),
    "qwen3": (
        "qwen3",
        {"head_dim": 12, "attention_bias": True, "use_sliding_window": True, "sliding_window": WINDOW,
         "max_window_layers": 2},
    ),
    "smollm3": (
        "smollm3",
        {**_BIASED, "no_rope_layer_interval": 2, "use_sliding_window": True, "sliding_window": WINDOW},
    ),
    "gemma2": ("gemma2", {**_GEMMA, "attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.0}),
    "gemma2 uncapped": ("gemma2", {**_GEMMA, "attn_logit_softcapping": None, "final_logit_softcapping": None}),
    "gemma3": ("gemma3_text", {**_GEMMA, "sliding_window_pattern": 2, "final_logit_softcapping": 2.0}),
    "phi3": ("phi3", {"num_key_value_heads": 4, "sliding_window": WINDOW}),
    "phi4 mini": (
        "phi3",
        {"partial_rotary_factor": 0.75, "rope_parameters": _LONGROPE, "original_max_position_embeddings": FEW_TOKENS,
         "sliding_window": None},
    ),
    "olmo2": ("olmo2", {"attention_bias": True}),
    "granite": (
        "granite",
        {**_BIASED, "embedding_multiplier": 3.0, "residual_multiplier": 0.4, "attention_multiplier": 0.3,
         "logits_scaling": 2.0},
    ),
}  # fmt: skip


def tiny_family(case: str, dtype: torch.dtype = torch.float32, attention: str = "eager", **changes: Any) -> Any:
    """A frozen model of one of `CASES`, equal at every call; norms and biases are random too, and large."""
    model_type, own = CASES[case]
    config = AutoConfig.for_model(model_type, **{**SIZES, **own, **changes})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter.add_(noise * 0.3)
            else:
                parameter.copy_(noise * 1.5 / parameter.shape[1] ** 0.5)
    return model.to(dtype).requires_grad_(False)
