"""Stands for torch's attention while bytes are counted: keeps what FlashAttention does, and computes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from trainables.base_model.probe.counted_layer import Attending, Attends


class FlashInstead(TorchFunctionMode):
    """Puts the stand-in in the place of torch's attention; `seen` is how it was called, the last time.

    `note` is called in the stand-in's forward when the output is there, and in its backward when the gradients are.
    """

    def __init__(self, note: Callable[[Attends], None]) -> None:
        super().__init__()
        self.seen: Attending | None = None
        self._note = note

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        if function is not scaled_dot_product_attention:
            return function(*arguments, **(keywords or {}))
        return self._attend(*arguments, **(keywords or {}))

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        self.seen = Attending(query.shape[-3], key.shape[-3], query.shape[-1], attn_mask is not None)
        attended: torch.Tensor = _Flash.apply(query, key, value, self._note)
        return attended


class _Flash(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, note: Callable[[Attends], None]
    ) -> torch.Tensor:
        rows, heads, tokens, width = query.shape
        attended = torch.empty_like(query)  # in the order of the queries' numbers
        if value.shape[-1] != width:
            attended = query.new_empty(rows, tokens, heads, value.shape[-1]).transpose(1, 2)
        log_sums = query.new_empty(rows, heads, tokens, dtype=torch.float32)
        ctx.save_for_backward(query, key, value, attended, log_sums)
        ctx.note = note
        note("forward")
        return attended

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        query, key, value, *_ = ctx.saved_tensors
        grads = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        ctx.note("backward")
        return *grads, None
