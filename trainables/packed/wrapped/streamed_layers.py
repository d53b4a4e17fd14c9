"""Brings layers from host memory for transformers' own code: before each is called, and called again backwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from torch import nn

from trainables.base_model.loading.placement import decoder_layers
from trainables.base_model.streaming.layer_stream import LayerStreams
from trainables.packed.linear_group import frozen_weight
from trainables.packed.wrapped.grouped_linear import PackedLoraLinear


def bring_when_called(model: Any, streams: LayerStreams) -> None:
    """Lets each of a decoder's layers ask for itself, wherever it is called.

    Under gradient checkpointing transformers calls a layer's forward again in the backward pass, without the layer's
    own hooks: so the modules directly within it ask as well, but for those that several layers share. The layer's
    backward follows at once, and finds the layer still there.
    """
    layers = [layer for _, layer in decoder_layers(model)]
    holders = Counter(id(child) for layer in layers for child in layer.children())
    for number, layer in enumerate(layers):
        layer.register_forward_pre_hook(_asking(streams, number))
        for child in layer.children():
            if holders[id(child)] == 1:
                child.register_forward_pre_hook(_bringing(streams, number))
        if number in streams.layers:
            _read_weights_late(layer, partial(streams.use, number))


def _bringing(streams: LayerStreams, number: int) -> Any:
    def bring(module: nn.Module, arguments: Any) -> None:
        streams.use(number)

    return bring


def _asking(streams: LayerStreams, number: int) -> Any:
    def ask(layer: Any, arguments: Any) -> None:
        kept = torch.is_grad_enabled() and not (getattr(layer, "gradient_checkpointing", False) and layer.training)
        if kept and number in streams.layers:
            raise RuntimeError(
                f"a layer in host memory must be trained with gradient checkpointing; layer {number} would keep "
                "weights that are overwritten before its backward pass. Set training.gradient_checkpointing to true."
            )
        streams.use(number)

    return ask


def _read_weights_late(layer: nn.Module, bring: Callable[[], None]) -> None:
    """Lets nothing keep a view of a weight beyond its layer's turn: its buffer is another layer's by then.

    The product of bitsandbytes' 4-bit layers does so, beside what checkpointing drops, for its backward pass.
    """
    for module in layer.modules():
        if isinstance(module, PackedLoraLinear):
            module.streamed = True
        elif isinstance(module, Linear4bit):
            module.forward = _LateProduct(module, bring)


class _LateProduct:
    """A 4-bit layer's forward, with the same products as its own."""

    def __init__(self, linear: Linear4bit, bring: Callable[[], None]) -> None:
        self._linear = linear
        self._bring = bring
        self.output = linear.forward

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        graph = torch.is_grad_enabled() and x.requires_grad
        output: torch.Tensor = _LateProductFunction.apply(x, self) if graph else self.output(x)
        return output

    def input_gradient(self, gradient: torch.Tensor) -> torch.Tensor:
        """Returns the input's gradient, from the weight where it is now.

        A layer's last product may come before anything that has the layer computed again.
        """
        self._bring()
        type_of_products = self._linear.compute_dtype or gradient.dtype
        product = gradient.to(type_of_products) @ frozen_weight(self._linear, type_of_products)
        return product.to(gradient.dtype)


class _LateProductFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, product: _LateProduct) -> torch.Tensor:
        ctx.product = product
        return product.output(x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.product.input_gradient(gradient), None
