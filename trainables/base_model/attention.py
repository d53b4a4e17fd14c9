"""Repeats keys and values for all query heads where torch would else attend by plain mathematics.

transformers hands grouped heads to torch's attention as they are. FlashAttention 2 takes them; the memory-efficient
kernel does not in all versions, and what is left keeps scores of all pairs of tokens, in fp32. With keys and values
repeated, the kernel that serves a card of compute capability 7.5 serves these models too.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Literal

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AttentionInterface, PretrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from trainables.precision import Processor, attention_kernel

REPEATED = "sdpa_repeated_heads"  # transformers' name of this attention


def implementation(config: PretrainedConfig) -> Literal["sdpa", "eager"]:
    """Returns transformers' name of the attention that a model is built with: torch's own, where the model allows it.

    Gemma 2 caps its scores, which torch's attention cannot: its scores of all pairs of tokens are computed one by one.
    """
    model = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return "sdpa" if getattr(model, "_supports_sdpa", False) else "eager"


def attend_without_scores(model: PreTrainedModel, processor: Processor, compute: str) -> None:
    """Lets the model repeat keys and values where the processor has no FlashAttention 2 for it."""
    config = model.config
    if config._attn_implementation != "sdpa":
        return
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if attention_kernel(processor, compute, head_dim) not in ("flash", "cpu"):
        model.set_attn_implementation(REPEATED)


def attend_repeated(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attends as transformers' `sdpa` does, keys and values repeated; tensors are rows x heads x tokens x head_dim.

    A single query of generation has no scores to speak of, and is left as it is.
    """
    groups = getattr(module, "num_key_value_groups", 1)
    if groups == 1 or query.shape[2] == 1:
        attended, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **more)
        return attended, None
    ungrouped: Any = SimpleNamespace(is_causal=getattr(module, "is_causal", True))
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    attended, _ = sdpa_attention_forward(ungrouped, query, key, value, attention_mask, **more)
    return attended, None


AttentionInterface.register(REPEATED, attend_repeated)
AttentionMaskInterface.register(REPEATED, sdpa_mask)
