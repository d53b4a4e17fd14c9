"""Folders of a base model that can be inspected and not loaded: a configuration without real weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LLAMA = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 16, "intermediate_size": 24,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50,
    "max_position_embeddings": 64, "tie_word_embeddings": False,
}  # fmt: skip


def config_folder(path: Path, **changes: Any) -> Path:
    """Makes the folder of a small Llama; `changes` are of its configuration."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps({**LLAMA, **changes}))
    (path / "model.safetensors").write_bytes(b"not read by inspect")
    return path
