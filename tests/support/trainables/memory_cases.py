"""Shapes of published models and the settings that memory is predicted for in tests."""

from __future__ import annotations

from search_spaces.trial_config import TARGET_SETS
from trainables.base_model.shape import ModelShape
from trainables.memory.setting import MemorySetting
from trainables.memory.weights import ModelPart, base_components

GIB, MIB = 2**30, 2**20
Q_V, ALL_LINEAR = TARGET_SETS["q_v"], TARGET_SETS["all_linear"]
NF4, FP16 = MemorySetting("nf4", "fp16"), MemorySetting("fp16", "fp16")
LLAMA = {"model_type": "llama", "head_dim": 128, "tie_word_embeddings": False}
CONFIGS = {
    "llama-2-7b": {**LLAMA, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
                   "num_attention_heads": 32, "vocab_size": 32000},
    "llama-3-8b": {**LLAMA, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                   "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256},
    "llama-3.2-1b": {**LLAMA, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64,
                     "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
                     "tie_word_embeddings": True},
    "llama-3.2-3b": {**LLAMA, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28,
                     "num_attention_heads": 24, "num_key_value_heads": 8, "vocab_size": 128256,
                     "tie_word_embeddings": True},
    "mistral-7b": {"model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                   "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": None, "vocab_size": 32000},
}  # fmt: skip
SHAPES = {name: ModelShape.from_config(values) for name, values in CONFIGS.items()}
LLAMA_3 = SHAPES["llama-3-8b"]


def weight_bytes(shape: ModelShape, setting: MemorySetting) -> int:
    """The whole base model's frozen weights."""
    return sum(base_components(shape, setting, ModelPart(shape.layers)).values())
