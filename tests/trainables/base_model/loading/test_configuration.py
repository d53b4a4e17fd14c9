"""A model is loaded without dropout of its own, whatever its family calls it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    FalconConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MptConfig,
    OPTConfig,
    PhiConfig,
    PretrainedConfig,
    StableLmConfig,
)

from trainables.base_model.attention import implementation
from trainables.base_model.loading.configuration import folder_config
from trainables.base_model.loading.skeleton import build_skeleton

SMALL: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 64, "intermediate_size": 96,
}  # fmt: skip
DROPPING = [
    LlamaConfig(**SMALL, attention_dropout=0.1),
    GPT2Config(n_embd=64, n_layer=1, n_head=4, vocab_size=64, resid_pdrop=0.1, embd_pdrop=0.2, attn_pdrop=0.3),
    GPTNeoXConfig(**SMALL, hidden_dropout=0.1, attention_dropout=0.2),
    PhiConfig(**SMALL, resid_pdrop=0.1, embd_pdrop=0.1, attention_dropout=0.1),
    FalconConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=4, vocab_size=64, hidden_dropout=0.1),
    StableLmConfig(**SMALL, hidden_dropout=0.1, attention_dropout=0.1),
    OPTConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=4, vocab_size=64, ffn_dim=96,
              word_embed_proj_dim=64, dropout=0.1, layerdrop=0.1),
    MptConfig(d_model=64, n_layers=1, n_heads=4, vocab_size=64, resid_pdrop=0.1, emb_pdrop=0.1,
              attn_config={"attn_pdrop": 1}),
]  # fmt: skip


@pytest.mark.parametrize("config", DROPPING, ids=lambda config: config.model_type)
def test_nothing_is_dropped_in_training(config: PretrainedConfig, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    read = folder_config(tmp_path)
    assert read.name_or_path == str(tmp_path)
    model = build_skeleton(read, torch.float32)
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout) and module.p] == []
    dropping = ("drop", "pdrop")
    left = {
        f"{type(module).__name__}.{name}": value
        for module in model.modules()
        for name, value in vars(module).items()
        if any(part in name for part in dropping) and isinstance(value, float) and value
    }
    assert left == {}


def test_what_is_called_otherwise_stays(tmp_path: Path) -> None:
    LlamaConfig(**SMALL, rms_norm_eps=0.25, initializer_range=0.5).save_pretrained(tmp_path)
    read = folder_config(tmp_path)
    assert (read.rms_norm_eps, read.initializer_range, read.use_cache) == (0.25, 0.5, True)


def test_each_model_has_the_attention_that_it_allows() -> None:
    from transformers import Gemma2Config, Gemma3TextConfig

    assert implementation(Gemma2Config()) == "eager"  # it caps its scores
    assert implementation(Gemma3TextConfig()) == implementation(LlamaConfig()) == "sdpa"
