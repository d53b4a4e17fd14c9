"""Describes the families of base models, one form each: defaults, biases and norms, as transformers has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

QKV = ("q_proj", "k_proj", "v_proj")
ATTENTION = (*QKV, "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Family:
    """How a family's decoder differs from a plain one: RMS norms before attention and MLP, seven linear layers.

    `defaults` are what transformers fills in where a configuration is silent; without one, heads share no keys, a head
    has `hidden_size / num_attention_heads` numbers, and embeddings are not tied. `never_null` are keys that may be
    left out, but not be null. `biases` are linear layers with a bias, by the key that turns it on.
    """

    defaults: Mapping[str, Any]
    never_null: tuple[str, ...] = ()
    always_biased: tuple[str, ...] = ()
    biases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    head_norms: bool = False  # each head's queries and keys are normalized

    def biased(self, values: Mapping[str, Any]) -> frozenset[str]:
        """Returns the short names of the linear layers that have a bias under a configuration."""
        turned_on = (name for key, names in self.biases.items() if values.get(key) for name in names)
        return frozenset((*self.always_biased, *turned_on))


_SLIDING = ("attention_dropout", "use_sliding_window")
_QWEN = {"num_key_value_heads": 32, "max_position_embeddings": 32_768}
_BIASES = {"attention_bias": ATTENTION, "mlp_bias": MLP}
FAMILIES: Mapping[str, Family] = {  # by `model_type`
    "llama": Family({"max_position_embeddings": 2048}, biases=_BIASES),
    "mistral": Family(
        {"num_key_value_heads": 8, "max_position_embeddings": 131_072},
        never_null=("num_key_value_heads", "attention_dropout"),
    ),
    "qwen2": Family(_QWEN, never_null=(*_SLIDING, "max_window_layers", "head_dim"), always_biased=QKV),
    "qwen3": Family(
        {**_QWEN, "head_dim": 128},
        never_null=(*_SLIDING, "max_window_layers", "head_dim"),
        biases={"attention_bias": ATTENTION},
        head_norms=True,
    ),
    "smollm3": Family(
        {
            "num_key_value_heads": 4,
            "max_position_embeddings": 32_768,
            "tie_word_embeddings": True,
            "pad_token_id": 128_004,
        },
        never_null=(*_SLIDING, "no_rope_layer_interval", "head_dim"),
        biases=_BIASES,
    ),
}


def with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration with what its family fills in. Raises KeyError for a `model_type` without a family."""
    return {**FAMILIES[values["model_type"]].defaults, **values}
