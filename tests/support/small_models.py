"""Small models for tests: one of random weights, and where the learned ones of the developers' shared data are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support.places import SHARED


def shared(path: str) -> Path:
    """A file or folder of the developers' shared data; skips the test where it is missing."""
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"needs the developers' shared data: {path} is missing")
    return found.resolve()


def tiny_llama(dtype: torch.dtype = torch.float32, layers: int = 2) -> torch.nn.Module:
    """A Llama with random weights: 32 wide, grouped queries, 97 tokens; equal at every call."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=97,
        max_position_embeddings=128,
        attn_implementation="sdpa",
    )
    generator_state = torch.random.get_rng_state()
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(dtype)
    torch.random.set_rng_state(generator_state)
    return model.requires_grad_(False)
