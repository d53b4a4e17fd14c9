"""Looks up a model's input embedding in host memory, and brings the looked-up rows to the card."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from trainables.base_model.streaming.layer_block import stand_in


def embed_from_host(model: Any, device: torch.device | None = None) -> None:
    """Leaves the input embedding's weight in host memory, where it must be, and its vectors on `device`, in place.

    `device` takes token ids and vectors; None: that of the first other weight. The module keeps its class, and with it
    what a family makes of the vectors; its weight becomes a stand-in on `device` of the right shape and type. An
    embedding that is tied to the output head is left as it is, for the head reads it.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight is not embedding.weight:
        HostTable(embedding, device or _home(model, embedding))


def _home(model: nn.Module, embedding: nn.Embedding) -> torch.device:
    return next(one.device for one in model.parameters() if one is not embedding.weight)


class HostTable:
    """The rows of an embedding in host memory; takes the place of the module's forward."""

    def __init__(self, module: nn.Embedding, device: torch.device) -> None:
        self._table = module.weight.data
        self._module = module
        self._device = device
        self._stand_in = stand_in(self._table.shape, self._table.dtype, device)
        self._forward = module.forward
        module.weight.data = self._stand_in
        module.padding_idx = None  # which only says what gradient a row gets; it must be a row of the table
        module.forward = self.forward  # type: ignore[method-assign, assignment]

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Returns the tokens' vectors on the card; `input_ids` of any shape, which are waited for.

        The module's own forward reads one row for each token, as if they were its whole table.
        """
        rows = self._rows(input_ids.reshape(-1).cpu())
        places = torch.arange(len(rows), device=self._device).view(input_ids.shape)
        self._module.weight.data = rows
        try:
            return self._forward(places)
        finally:
            self._module.weight.data = self._stand_in

    def _rows(self, ids: torch.Tensor) -> torch.Tensor:
        """Returns a row of the table for each id, on the card, by way of page-locked memory.

        That memory's allocator gives it to nobody before the copy is done.
        """
        pinned = self._device.type == "cuda"
        rows = torch.empty(len(ids), self._table.shape[1], dtype=self._table.dtype, pin_memory=pinned)
        torch.index_select(self._table, 0, ids, out=rows)
        return rows.to(self._device, non_blocking=True)
