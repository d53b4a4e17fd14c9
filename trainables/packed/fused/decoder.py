"""Computes a decoder from token ids to its last hidden states, layer by layer.

transformers' own layers stay in charge of generation; here is the same arithmetic without what a frozen base does not
need: no gradients of norms, no attention masks (rows are padded on the right), one dequantization and one product for
each use of a weight, residuals added by the products themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import LlamaForCausalLM
from transformers.modeling_outputs import BaseModelOutputWithPast

from trainables.packed.fused.attention import Angles
from trainables.packed.fused.layer import FusedLayer
from trainables.packed.fused.norm import FrozenNorm
from trainables.packed.pack import Pack


def serves(model: nn.Module, linears: Mapping[str, nn.Module]) -> bool:
    """Whether the model is a Llama of the form that is computed here; `linears` are its linear layers by name."""
    if not isinstance(model, LlamaForCausalLM):
        return False
    config = model.config
    plain = config.hidden_act == "silu" and not config.attention_bias and not config.mlp_bias
    return plain and not config.attention_dropout and len(linears) == 7 * config.num_hidden_layers


class FusedDecoder:
    """The decoder of a Llama model, from token ids to its last hidden states."""

    def __init__(self, model: Any, linears: Mapping[str, nn.Linear]) -> None:
        """`linears` are the frozen layers by their names in the model."""
        self._decoder = model.get_decoder()
        layers = enumerate(self._decoder.layers)
        self._layers = [FusedLayer(f"model.layers.{index}", layer, linears) for index, layer in layers]
        self._norm = FrozenNorm(self._decoder.norm)

    def hidden(self, input_ids: torch.Tensor, pack: Pack) -> torch.Tensor:
        """Returns the last hidden states, rows x tokens x hidden.

        `input_ids` is rows x tokens, padded on the right.
        """
        embedded = self._decoder.embed_tokens(input_ids)
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        cos, sin = (angle[0].contiguous() for angle in self._decoder.rotary_emb(embedded, positions))
        hidden = self._through_layers(embedded.flatten(0, 1), (cos, sin), pack)
        return self._norm.apply(hidden.to(self._norm.device)).view(embedded.shape)

    def _through_layers(self, hidden: torch.Tensor, angles: Angles, pack: Pack) -> torch.Tensor:
        """Returns the last layer's output.

        No gradient goes below the lowest layer that an adapter updates, so nothing is kept there. Hidden states follow
        the layers from card to card, and gradients back.
        """
        trained = False
        for layer in self._layers:
            if hidden.device != layer.device:
                hidden, angles = hidden.to(layer.device), (angles[0].to(layer.device), angles[1].to(layer.device))
            below = not trained
            trained = trained or (torch.is_grad_enabled() and layer.adapted(pack))
            if not trained:
                with torch.no_grad():
                    hidden = layer.forward(hidden, angles, pack)
                continue
            if below:
                hidden = hidden.detach().requires_grad_()
            hidden = layer.apply(hidden, angles, pack, input_too=not below)
        return hidden

    def output(self, input_ids: torch.Tensor, pack: Pack) -> BaseModelOutputWithPast:
        """Returns the last hidden states in transformers' form."""
        return BaseModelOutputWithPast(last_hidden_state=self.hidden(input_ids, pack))
