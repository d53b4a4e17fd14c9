"""Computes a decoder from token ids to its last hidden states, layer by layer.

transformers' own layers stay in charge of generation; here is the same arithmetic without what a frozen base does not
need: no gradients of norms, no attention masks (rows are padded on the right), one dequantization and one product for
each use of a weight, residuals added by the products themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from trainables.packed.fused.form import DecoderForm
from trainables.packed.fused.layer import FusedLayer
from trainables.packed.fused.norm import FrozenNorm
from trainables.packed.fused.positions import Positions
from trainables.packed.pack import Pack


class FusedDecoder:
    """The decoder of a model whose family has a form, from token ids to its last hidden states."""

    def __init__(
        self, model: Any, linears: Mapping[str, nn.Linear], bring: Callable[[int], None] = lambda layer: None
    ) -> None:
        """`linears` are the frozen layers by their names in the model, which `serving.serves` has agreed to.

        `bring` is told the number of a layer before its weights are read, forward and backward.
        """
        self._decoder = model.get_decoder()
        form, rotary = DecoderForm.of(model.config), self._decoder.rotary_emb
        layers = self._decoder.layers
        self._forms = [form.of_layer(layer.self_attn, rotary) for layer in layers]
        parts = enumerate(zip(layers, self._forms, strict=True))
        self._layers = [
            FusedLayer(f"model.layers.{place}", *part, form, linears, partial(bring, place)) for place, part in parts
        ]
        self._norm = FrozenNorm(self._decoder.norm, form.family.norm_offset)
        self._embedding_factor = form.embedding_factor

    def hidden(self, input_ids: torch.Tensor, pack: Pack) -> torch.Tensor:
        """Returns the last hidden states, rows x tokens x hidden.

        `input_ids` is rows x tokens, padded on the right.
        """
        embedded = self._embedded(input_ids)
        positions = Positions.of(self._decoder.rotary_emb, embedded, self._forms)
        hidden = self._through_layers(embedded.flatten(0, 1), positions, pack)
        return self._norm.apply(hidden.to(self._norm.device)).view(embedded.shape)

    def _embedded(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Returns the embeddings; a factor that depends on the hidden size is applied by transformers' own module."""
        embedded: torch.Tensor = self._decoder.embed_tokens(input_ids)
        return embedded if self._embedding_factor == 1.0 else embedded * self._embedding_factor

    def _through_layers(self, hidden: torch.Tensor, positions: Positions, pack: Pack) -> torch.Tensor:
        """Returns the last layer's output.

        No gradient goes below the lowest layer that an adapter updates, so nothing is kept there. Hidden states follow
        the layers from card to card, and gradients back.
        """
        trained = False
        for layer in self._layers:
            if hidden.device != layer.device:
                hidden, positions = hidden.to(layer.device), positions.to(layer.device)
            below = not trained
            trained = trained or (torch.is_grad_enabled() and layer.adapted(pack))
            if not trained:
                with torch.no_grad():
                    hidden = layer.forward(hidden, positions, pack)
                continue
            if below:
                hidden = hidden.detach().requires_grad_()
            hidden = layer.apply(hidden, positions, pack, input_too=not below)
        return hidden

    def output(self, input_ids: torch.Tensor, pack: Pack) -> BaseModelOutputWithPast:
        """Returns the last hidden states in transformers' form."""
        return BaseModelOutputWithPast(last_hidden_state=self.hidden(input_ids, pack))
