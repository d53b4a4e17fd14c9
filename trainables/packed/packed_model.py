"""Wraps a frozen base model so that its rows carry the low-rank updates of several adapters.

The rows of a batch are grouped by adapter. A frozen linear layer runs once over all rows; then each adapter adds its
own update to its own rows: h = W0 x + (alpha / r) B A x, with B = 0 at the start (Hu et al. 2021, arXiv 2106.09685).

Families with a form train and evaluate through `trainables.packed.fused`; others, and all generation, through
transformers' own layers with `trainables.packed.wrapped.grouped_linear` in place of the linear ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from search_spaces.trial_config import TrialConfig
from trainables.base_model.load import devices_of
from trainables.base_model.streaming.layer_block import LayerBlock
from trainables.base_model.streaming.layer_stream import LayerStreams
from trainables.limits import FP32_BYTES
from trainables.packed.adapter import LoraAdapter, PackedRows
from trainables.packed.fused.decoder import FusedDecoder
from trainables.packed.fused.serving import serves
from trainables.packed.layer_inputs.layer_inputs import LayerInputs
from trainables.packed.logits_form import LogitsForm, OutputHead, check_logits
from trainables.packed.pack import PADDING_BYTES, Pack, padding_pays
from trainables.packed.target_loss import target_nats
from trainables.packed.wrapped.grouped_linear import PackContext
from trainables.packed.wrapped.linear_layers import few_tokens, surveyed, taken_up, wrap_linears
from trainables.packed.wrapped.streamed_layers import bring_when_called

DENSE_BYTES = 2**30  # at most, of frozen weights that are kept as they are multiplied, while text is generated


class PackedModel:
    """A causal model whose linear layers carry several adapters at once."""

    def __init__(
        self, model: Any, fused: bool = True, form: LogitsForm | None = None,
        blocks: Mapping[int, LayerBlock] = MappingProxyType({}),
    ) -> None:  # fmt: skip
        """Wraps the model's linear layers in place; `fused`: families with a form go through the fused decoder.

        `form` is what the model makes of its head's products, as its configuration says where it is None. `blocks` are
        the layers in host memory, by their number: each is brought to its card whenever it is at work. Raises
        ValueError where the model has no linear layers that adapters may update, or other logits than its head's.
        """
        self.model = model
        self.output_head = OutputHead(model.get_output_embeddings(), form or LogitsForm.of(model.config))
        self.devices = devices_of(model)  # that hold a part of it, in the order of its layers
        self.context = PackContext()
        self.layer_inputs = LayerInputs()
        self.run_tokens = 0  # what another run in a pass costs in tokens' worth of work: none, until it is measured
        model.get_output_embeddings().register_forward_pre_hook(_side_by_side)
        self.streams = LayerStreams(blocks)
        wrapped = wrap_linears(model, self.context)
        if blocks:
            bring_when_called(model, self.streams)
        with surveyed(self.context) as seen:
            check_logits(model, self.output_head, few_tokens)
        self.linears = taken_up(model, wrapped, seen)
        if not self.linears:
            raise ValueError(
                f"adapters update linear layers within a decoder's repeated layers; {type(model).__name__} has none "
                "that read whole rows. Choose another base model."
            )
        self._frozen = {name: layer.base for name, layer in self.linears.items()}
        self.fused = fused and serves(model, self._frozen)
        if self.fused:
            _compute_by(FusedDecoder(model, self._frozen, self.streams.use), model.get_decoder(), self.context)

    @contextmanager
    def rows_of(self, members: Sequence[PackedRows], keeps: bool = False) -> Iterator[Any]:
        """Gives the model whose next batches' rows belong to `members` (sorted by row), for forward and backward.

        `keeps`: many short passes without training follow. Adapters' weights are laid side by side once for all of
        them, and frozen weights that a processor would cast or dequantize for each are kept as it multiplies them.
        """
        self.context.pack = Pack(members, self._pads(members), keeps)
        self.context.dense = {} if keeps and self._has_room_for_dense() else None
        try:
            yield self.model
        finally:
            self.context.clear()

    def _has_room_for_dense(self) -> bool:
        numbers = sum(layer.base.in_features * layer.base.out_features for layer in self.linears.values())
        return self.device.type == "cpu" and numbers * FP32_BYTES <= DENSE_BYTES

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
        return self.output_head.weight

    def target_nats(self, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Returns minus the log-likelihood of each target, n fp32 numbers, for hidden states of n x hidden."""
        head = self.output_head
        return target_nats(hidden, head.weight, targets, head.form, head.bias)

    def new_adapter(self, config: TrialConfig, device: torch.device | None = None) -> LoraAdapter:
        """Initializes an adapter over this model, which changes nothing yet; on `device`, or where its layers are."""
        return LoraAdapter.fresh(config, self._frozen, device)

    def homes(self, adapter: LoraAdapter) -> list[torch.device]:
        """Lists the devices that an adapter's parameters train on: those of their layers."""
        return [self._frozen[name].weight.device for name in adapter.weights for _ in ("a", "b")]


def _side_by_side(head: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Gives the head hidden states without gaps: of those of rows' last tokens, torch copies the head for each row."""
    return tuple(hidden.contiguous() for hidden in arguments)


def _compute_by(fused: FusedDecoder, decoder: nn.Module, context: PackContext) -> None:
    """Lets `decoder(input_ids=..., use_cache=False)` run fused; whatever asks for more runs as in transformers."""
    original = decoder.forward

    def forward(input_ids: torch.Tensor | None = None, use_cache: bool | None = None, **more: Any) -> Any:
        if input_ids is not None and use_cache is False and all(value is None for value in more.values()):
            return fused.output(input_ids, context.pack)
        return original(input_ids=input_ids, use_cache=use_cache, **more)

    decoder.forward = forward
