"""Describes the families of base models, one form each: how a family's decoder differs from a plain one.

Everything that depends on a family reads its form here: which tensors its files hold, what memory it takes, and how
`trainables.packed.fused` computes it. The facts are those of transformers' own model classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

QKV = ("q_proj", "k_proj", "v_proj")
ATTENTION = (*QKV, "o_proj")
GATE_UP = ("gate_proj", "up_proj")
MLP = (*GATE_UP, "down_proj")
JOINED_QKV, JOINED_GATE_UP = ("qkv_proj",), ("gate_up_proj",)

COMPUTED_ACTIVATIONS = ("silu", "gelu_pytorch_tanh")  # by transformers' names, those that the fused path computes

HeadNorms = Literal["none", "of_each_head", "of_all_heads"]
EmbeddingScale = Literal["none", "root_of_hidden_size"]


@dataclass(frozen=True)
class LayerNorms:
    """The names of a layer's RMS norms, by their place; None where a block has none there."""

    before_attention: str | None = "input_layernorm"
    after_attention: str | None = None  # of the block's output, before the residual is added
    before_mlp: str | None = "post_attention_layernorm"
    after_mlp: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The norms that a layer has."""
        places = (self.before_attention, self.after_attention, self.before_mlp, self.after_mlp)
        return tuple(name for name in places if name is not None)


_AROUND = LayerNorms(
    "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"
)
_AFTER = LayerNorms(None, "post_attention_layernorm", None, "post_feedforward_layernorm")


@dataclass(frozen=True)
class Family:
    """How a family's decoder differs from a plain one: RMS norms before attention and MLP, seven linear layers.

    `defaults` are what transformers fills in where a configuration is silent; without one, heads share no keys, a head
    has `hidden_size / num_attention_heads` numbers, and embeddings are not tied. `never_null` are keys that may be
    left out, but not be null. `biases` are linear layers with a bias, by the key that turns it on. `norm_offset` is
    added to norms' weights. `head_norms` normalizes queries and keys: each head by itself, or all heads' numbers of a
    token together. `qkv` and `gate_up` are the linear layers that read the attention's and the MLP's input, in the
    order of their outputs. The `*_key`s name what a configuration calls its activation, and its factors: embeddings
    and each block's output are multiplied by theirs, scores too (`attention_scale_key`; a
    `query_pre_attn_scalar` instead stands for its own root's inverse), logits are divided by theirs. Caps are
    cap * tanh(x / cap). `windowed`: layers may attend to a sliding window only.
    """

    defaults: Mapping[str, Any]
    never_null: tuple[str, ...] = ()
    always_biased: tuple[str, ...] = ()
    biases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    norms: LayerNorms = LayerNorms()
    norm_offset: float = 0.0
    head_norms: HeadNorms = "none"
    qkv: tuple[str, ...] = QKV
    gate_up: tuple[str, ...] = GATE_UP
    activation_key: str = "hidden_act"
    embedding_scale: EmbeddingScale = "none"
    embedding_scale_key: str | None = None
    residual_scale_key: str | None = None
    attention_scale_key: str | None = None
    query_scalar_key: str | None = None
    logits_divisor_key: str | None = None
    attention_cap_key: str | None = None
    logits_cap_key: str | None = None
    windowed: bool = False
    partly_rotated: bool = False  # `partial_rotary_factor` of a head's numbers are rotated
    fp32_angles: bool = False  # rotary angles are fp32, whatever the hidden states are
    rope_types: tuple[str, ...] | None = None  # those its class takes; None: all
    rope_by_layer_type: bool = False  # `rope_parameters` has a mapping for each type of layer

    def biased(self, values: Mapping[str, Any]) -> frozenset[str]:
        """Returns the short names of the linear layers that have a bias under a configuration."""
        turned_on = (name for key, names in self.biases.items() if values.get(key) for name in names)
        return frozenset((*self.always_biased, *turned_on))

    def computes(self, values: Mapping[str, Any]) -> bool:
        """Whether a configuration's activation is one that the fused path computes."""
        return values.get(self.activation_key, COMPUTED_ACTIVATIONS[0]) in COMPUTED_ACTIVATIONS

    @property
    def targets(self) -> Mapping[str, tuple[str, ...]]:
        """The linear layers that each set of target modules means in this family; none where it has no form."""
        if not self.qkv:
            return {}
        q_v = ("q_proj", "v_proj") if self.qkv == QKV else self.qkv
        return {"q_v": q_v, "all_linear": (*self.qkv, "o_proj", *self.gate_up, "down_proj")}


_SLIDING = ("attention_dropout", "use_sliding_window")
_PHI_DROPOUT = ("attention_dropout", "resid_pdrop", "embd_pdrop")
_GRANITE_FACTORS = ("embedding_multiplier", "logits_scaling", "residual_multiplier", "attention_multiplier")
_QWEN = {"num_key_value_heads": 32, "max_position_embeddings": 32_768}
_BIASES = {"attention_bias": ATTENTION, "mlp_bias": MLP}
_GEMMA = {
    "num_key_value_heads": 4,
    "head_dim": 256,
    "tie_word_embeddings": True,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "rms_norm_eps": 1e-6,
    "pad_token_id": 0,
}
_GEMMA_SIZES = ("num_key_value_heads", "head_dim", "query_pre_attn_scalar")
FAMILIES: Mapping[str, Family] = {  # by `model_type`
    "llama": Family({"max_position_embeddings": 2048}, biases=_BIASES),
    "mistral": Family(
        {"num_key_value_heads": 8, "max_position_embeddings": 131_072, "sliding_window": 4096},
        never_null=("num_key_value_heads", "attention_dropout"),
        windowed=True,
    ),
    "qwen2": Family(_QWEN, never_null=(*_SLIDING, "max_window_layers", "head_dim"), always_biased=QKV, windowed=True),
    "qwen3": Family(
        {**_QWEN, "head_dim": 128},
        never_null=(*_SLIDING, "max_window_layers", "head_dim"),
        biases={"attention_bias": ATTENTION},
        head_norms="of_each_head",
        windowed=True,
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
        windowed=True,
    ),
    "gemma2": Family(
        {**_GEMMA, "max_position_embeddings": 8192, "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0},
        never_null=_GEMMA_SIZES,
        biases={"attention_bias": ATTENTION},
        norms=_AROUND,
        norm_offset=1.0,
        activation_key="hidden_activation",
        embedding_scale="root_of_hidden_size",
        query_scalar_key="query_pre_attn_scalar",
        attention_cap_key="attn_logit_softcapping",
        logits_cap_key="final_logit_softcapping",
        windowed=True,
    ),
    "gemma3_text": Family(
        {**_GEMMA, "max_position_embeddings": 131_072},
        never_null=(*_GEMMA_SIZES, "sliding_window_pattern", "rope_local_base_freq"),
        biases={"attention_bias": ATTENTION},
        norms=_AROUND,
        norm_offset=1.0,
        head_norms="of_each_head",
        activation_key="hidden_activation",
        embedding_scale="root_of_hidden_size",
        query_scalar_key="query_pre_attn_scalar",
        logits_cap_key="final_logit_softcapping",  # its attention reads no cap
        windowed=True,
        rope_by_layer_type=True,
    ),
    "phi3": Family(
        {"max_position_embeddings": 4096, "original_max_position_embeddings": 4096, "pad_token_id": 32_000},
        never_null=("head_dim", "partial_rotary_factor", "original_max_position_embeddings", *_PHI_DROPOUT),
        qkv=JOINED_QKV,
        gate_up=JOINED_GATE_UP,
        windowed=True,
        partly_rotated=True,
        rope_types=("default", "longrope"),
    ),
    "olmo2": Family(
        {"max_position_embeddings": 2048, "pad_token_id": 1},
        never_null=("head_dim", "attention_dropout"),
        biases={"attention_bias": ATTENTION},
        norms=_AFTER,
        head_norms="of_all_heads",
        fp32_angles=True,
    ),
    "granite": Family(
        {"max_position_embeddings": 2048, **dict.fromkeys(_GRANITE_FACTORS, 1.0)},
        never_null=("head_dim", "attention_dropout", *_GRANITE_FACTORS),
        biases=_BIASES,
        embedding_scale_key="embedding_multiplier",
        residual_scale_key="residual_multiplier",
        attention_scale_key="attention_multiplier",
        logits_divisor_key="logits_scaling",
    ),
}

FORMLESS = Family({}, norms=LayerNorms(None, None, None, None), qkv=(), gate_up=())  # of a decoder that was probed


def with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration with what its family fills in. Raises KeyError for a `model_type` without a family."""
    return {**FAMILIES[values["model_type"]].defaults, **values}
