"""Holds what a pass' layers read of positions: rotary angles and the masks of sliding windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainables.packed.fused.form import EVERY_LAYER, LayerForm

Angles = tuple[torch.Tensor, torch.Tensor]  # cos and sin of rotary positions, each tokens x width, at most head_dim
ALIGNED_COLUMNS = 8  # torch's kernels copy a mask whose rows begin elsewhere


@dataclass(frozen=True)
class Positions:
    """The positions of a pass, the same in all its rows: `tokens` of a row, longest row's padding included."""

    tokens: int
    angles: Mapping[str, Angles]  # by the layers' name for them
    masks: Mapping[int, torch.Tensor]  # by window, tokens x at least tokens: minus infinity where a token is not seen

    @classmethod
    def of(cls, rotary: Any, embedded: torch.Tensor, layers: Sequence[LayerForm]) -> Positions:
        """Computes what the layers read; windows at least as long as rows need no mask.

        `rotary` is transformers' own, and decides which frequencies are right for so many tokens; `embedded` is rows x
        tokens x hidden.
        """
        tokens = embedded.shape[1]
        places = torch.arange(tokens, device=embedded.device)[None]
        names = {layer.angles for layer in layers if layer.angles is not None}
        windows = {layer.scores.masked_window or tokens for layer in layers}
        return cls(
            tokens,
            {name: _angles(rotary, embedded, places, name) for name in names},
            {window: _mask(embedded, window) for window in windows if window < tokens},
        )

    def angles_of(self, layer: LayerForm) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Returns a layer's angles; None twice where its heads do not turn."""
        return (None, None) if layer.angles is None else self.angles[layer.angles]

    def mask_of(self, layer: LayerForm) -> torch.Tensor | None:
        """Returns what is added to a layer's scores, tokens x tokens; None where the causal mask does."""
        mask = self.masks.get(layer.scores.masked_window or self.tokens)
        return None if mask is None else mask[:, : self.tokens]

    def to(self, device: torch.device) -> Positions:
        """Returns the same on another device."""
        angles = {name: (cos.to(device), sin.to(device)) for name, (cos, sin) in self.angles.items()}
        return Positions(self.tokens, angles, {window: mask.to(device) for window, mask in self.masks.items()})


def _angles(rotary: Any, embedded: torch.Tensor, places: torch.Tensor, name: str) -> Angles:
    of_layer_type = () if name == EVERY_LAYER else (name,)
    cos, sin = (angle[0].contiguous() for angle in rotary(embedded, places, *of_layer_type))
    return cos, sin


def _mask(embedded: torch.Tensor, window: int) -> torch.Tensor:
    """Returns what is added to scores, in the type of hidden states: so no layer makes, and keeps, its own copy."""
    tokens = embedded.shape[1]
    columns = -(-tokens // ALIGNED_COLUMNS) * ALIGNED_COLUMNS
    seen = embedded.new_ones(tokens, columns, dtype=torch.bool).tril_().triu_(1 - window)
    return embedded.new_zeros(tokens, columns).masked_fill_(~seen, float("-inf"))
