"""Wraps a frozen base model so that its rows carry the low-rank updates of several adapters.

The rows of a batch are grouped by adapter. A frozen linear layer runs once over all rows; then each adapter adds its
own update to its own rows: h = W0 x + (alpha / r) B A x, with B = 0 at the start (Hu et al. 2021, arXiv 2106.09685).

Llama models train and evaluate through `trainables.packed.fused`; others, and all generation, through transformers'
own layers with `PackedLoraLinear` in place of the linear ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from search_spaces.trial_config import MODULE_NAMES, TrialConfig
from trainables.base_model.load import devices_of
from trainables.packed.adapter import LoraAdapter, PackedRows
from trainables.packed.dropout import dropout_mask
from trainables.packed.fused.decoder import FusedDecoder
from trainables.packed.fused.serving import serves
from trainables.packed.pack import PADDING_BYTES, Pack, padding_pays


@dataclass
class PackContext:
    """The pack whose batch is going through: shared by all layers, set around forward and backward."""

    pack: Pack = field(default_factory=Pack)


class PackedLoraLinear(nn.Module):
    """A frozen linear layer that adds each adapter's update to that adapter's rows, differentiated by autograd."""

    def __init__(self, base: nn.Linear, name: str, context: PackContext) -> None:
        super().__init__()
        self.base = base
        self.name = name
        self.context = context

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns rows x tokens x out_features, in the base's type, for `x` of rows x tokens x in_features."""
        y = self.base(x)
        members = [member for member in self.context.pack.members if self.name in member.adapter.weights]
        if not members:
            return y
        return y + _updates(members, self.name, x, y)


def _updates(members: Sequence[PackedRows], name: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    if len(members) == 1 and members[0].tokens in (None, x.shape[1]) and _covers(members[0].rows, x.shape[0]):
        return _update(members[0], name, x)
    parts: list[torch.Tensor] = []
    row = 0
    for member in members:
        parts.append(y.new_zeros(member.rows.start - row, *y.shape[1:]))
        tokens = member.tokens or x.shape[1]
        own = _update(member, name, x[member.rows, :tokens])
        parts.append(nn.functional.pad(own, (0, 0, 0, x.shape[1] - tokens)))
        row = member.rows.stop
    parts.append(y.new_zeros(x.shape[0] - row, *y.shape[1:]))
    return torch.cat([part for part in parts if part.shape[0]])


def _covers(rows: slice, count: int) -> bool:
    return rows.start == 0 and rows.stop == count


def _update(member: PackedRows, name: str, x: torch.Tensor) -> torch.Tensor:
    """Returns (alpha / r) B A dropout(x): products in the type of `x`, weights cast to it as autocast would."""
    config = member.adapter.config
    pair = member.adapter.weights[name]
    if member.dropout:
        x = x * dropout_mask(config, name, member.dropout_key or 0, x)
    low = nn.functional.linear(x, pair.a.to(x.dtype))
    return nn.functional.linear(low, pair.b.to(x.dtype)) * config.scaling


class PackedModel:
    """A Llama-like causal model whose linear layers carry several adapters at once."""

    def __init__(self, model: Any, fused: bool = True) -> None:
        """Wraps the model's linear layers in place; `fused`: Llama models go through the fused decoder.

        Raises ValueError where the model has none of the linear layers that adapters may update.
        """
        self.model = model
        self.devices = devices_of(model)  # that hold a part of it, in the order of its layers
        self.context = PackContext()
        self.run_tokens = 0  # what another run in a pass costs in tokens' worth of work: none, until it is measured
        self.linears = _wrap_linears(model, self.context)
        if not self.linears:
            raise ValueError(f"the model must have linear layers named {', '.join(MODULE_NAMES)}; it has none of them")
        self._frozen = {name: layer.base for name, layer in self.linears.items()}
        self.fused = fused and serves(model, self._frozen)
        if self.fused:
            _compute_by(FusedDecoder(model, self._frozen), model.get_decoder(), self.context)

    @contextmanager
    def rows_of(self, members: Sequence[PackedRows]) -> Iterator[Any]:
        """Gives the model whose next batches' rows belong to `members` (sorted by row), for forward and backward."""
        self.context.pack = Pack(members, self._pads(members))
        try:
            yield self.model
        finally:
            self.context.pack = Pack()

    def _pads(self, members: Sequence[PackedRows]) -> bool:
        """Whether adapters of unlike rank share products. A pass that keeps its layers' weights keeps the zeros too."""
        keeps = torch.is_grad_enabled() and not self.model.is_gradient_checkpointing
        room = PADDING_BYTES if keeps else math.inf
        return padding_pays(members, self.run_tokens, room, self.head.element_size())

    @property
    def device(self) -> torch.device:
        """The device of the input embedding, which token ids go to."""
        return self.model.get_input_embeddings().weight.device

    @property
    def head(self) -> torch.Tensor:
        """The output head's weight, vocabulary x hidden."""
        return self.model.get_output_embeddings().weight

    def new_adapter(self, config: TrialConfig, device: torch.device | None = None) -> LoraAdapter:
        """Initializes an adapter over this model, which changes nothing yet; on `device`, or where its layers are."""
        return LoraAdapter.fresh(config, self._frozen, device)

    def homes(self, adapter: LoraAdapter) -> list[torch.device]:
        """Lists the devices that an adapter's parameters train on: those of their layers."""
        return [self._frozen[name].weight.device for name in adapter.weights for _ in ("a", "b")]


def _compute_by(fused: FusedDecoder, decoder: nn.Module, context: PackContext) -> None:
    """Lets `decoder(input_ids=..., use_cache=False)` run fused; whatever asks for more runs as in transformers."""
    original = decoder.forward

    def forward(input_ids: torch.Tensor | None = None, use_cache: bool | None = None, **more: Any) -> Any:
        if input_ids is not None and use_cache is False and all(value is None for value in more.values()):
            return fused.output(input_ids, context.pack)
        return original(input_ids=input_ids, use_cache=use_cache, **more)

    decoder.forward = forward


def _wrap_linears(model: nn.Module, context: PackContext) -> dict[str, PackedLoraLinear]:
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rsplit(".", 1)[-1] in MODULE_NAMES
    }
    wrapped: dict[str, PackedLoraLinear] = {}
    for name, module in found.items():
        parent, _, leaf = name.rpartition(".")
        wrapped[name] = PackedLoraLinear(module, name, context)
        setattr(model.get_submodule(parent), leaf, wrapped[name])
    return wrapped
