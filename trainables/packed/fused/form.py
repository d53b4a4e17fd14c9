"""Reads how a model's decoder is computed: the form of its family, with the numbers of its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from trainables.base_model.families import Family
from trainables.base_model.shape import ModelShape
from trainables.kernels.elementwise import Activation
from trainables.packed.fused.scores import Scores

ACTIVATIONS: Mapping[str, Activation] = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}  # by transformers' name
EVERY_LAYER = "every_layer"  # whose rotary angles, where all layers share them


@dataclass(frozen=True)
class LayerForm:
    """What differs from layer to layer: the name of the rotary angles, None where heads do not turn; the scores."""

    angles: str | None
    scores: Scores


@dataclass(frozen=True)
class DecoderForm:
    """What all layers of a decoder have in common; factors are 1 where a family has none."""

    shape: ModelShape
    activation: Activation
    embedding_factor: float
    residual_factor: float
    score_factor: float
    score_cap: float | None
    sliding_window: int | None

    @classmethod
    def of(cls, config: Any) -> DecoderForm:
        """Reads transformers' configuration. Raises KeyError for a family or an activation that has no form here."""
        shape = ModelShape.from_config(config.to_dict())
        family = shape.family
        cap = getattr(config, family.attention_cap_key) if family.attention_cap_key else None
        return cls(
            shape=shape,
            activation=ACTIVATIONS[getattr(config, family.activation_key, None) or ""],
            embedding_factor=_factor(config, family.embedding_scale_key),
            residual_factor=_factor(config, family.residual_scale_key),
            score_factor=_score_factor(config, shape),
            score_cap=cap,
            sliding_window=config.sliding_window if family.windowed else None,
        )

    @property
    def family(self) -> Family:
        """The form of the family."""
        return self.shape.family

    def of_layer(self, attention: nn.Module, rotary: nn.Module) -> LayerForm:
        """Returns a layer's own form; `attention` and `rotary` are transformers' own.

        Where only some layers have a window, or their heads turn, their attention says which. `rotary` lists
        `layer_types` where their angles differ.
        """
        window = getattr(attention, "sliding_window", self.sliding_window) if self.family.windowed else None
        angles = getattr(attention, "layer_type", EVERY_LAYER) if hasattr(rotary, "layer_types") else EVERY_LAYER
        turns = getattr(attention, "use_rope", True)
        return LayerForm(angles if turns else None, Scores(self.score_factor, self.score_cap, window))


def _factor(config: Any, key: str | None) -> float:
    return float(getattr(config, key)) if key else 1.0


def _score_factor(config: Any, shape: ModelShape) -> float:
    """Returns the factor of the products of queries and keys."""
    family = shape.family
    if family.attention_scale_key:
        return float(getattr(config, family.attention_scale_key))
    width = getattr(config, family.query_scalar_key) if family.query_scalar_key else shape.head_dim
    return float(width) ** -0.5
