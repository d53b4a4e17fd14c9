"""Multiplies 16-bit weights in fp32 on a processor that cannot multiply 16 bits.

A processor without AVX512-BF16 or AMX multiplies bf16 many times slower than fp32. The weights keep their type, and
their memory, and each product casts its own weight for as long as it lasts: as NF4 is dequantized.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import FunctionCtx

BLOCK_NUMBERS = 2**21  # a weight with more is cast in blocks of so many, whose memory the heap keeps


class UpcastLinear(nn.Linear):
    """A frozen linear layer whose product is taken in the type of its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `x` W^T + b, ... x out_features, for `x` of ... x in_features, in the type of `x`."""
        product = _UpcastProduct.apply(x, self.weight)
        return product if self.bias is None else product + self.bias.to(x.dtype)


class UpcastEmbedding(nn.Embedding):
    """A frozen embedding whose vectors come out in fp32."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Returns the tokens' vectors, of the shape of `tokens` with one more dimension."""
        return super().forward(tokens).float()


class _UpcastProduct(torch.autograd.Function):
    """x W^T, which saves the 16-bit weight for the backward pass, and not its fp32 copy."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight)
        if weight.numel() <= BLOCK_NUMBERS:
            return nn.functional.linear(x, weight.to(x.dtype))
        # A large weight's copy would be new memory each time, mapped page by page: that takes longer than the product.
        blocks = weight.split(max(1, BLOCK_NUMBERS // weight.shape[1]))
        return torch.cat([nn.functional.linear(x, block.to(x.dtype)) for block in blocks], dim=-1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        (weight,) = ctx.saved_tensors
        return gradient @ weight.to(gradient.dtype), None


def upcast_products(model: nn.Module) -> None:
    """Makes a 16-bit model compute in fp32, in place: linear layers and embeddings keep their weights."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = UpcastLinear
        elif type(module) is nn.Embedding:
            module.__class__ = UpcastEmbedding
        elif isinstance(module, nn.Embedding):  # a family's own, as Gemma's, which scales what a plain one returns
            module.__class__ = type(f"Upcast{type(module).__name__}", (type(module), UpcastEmbedding), {})
        else:
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.float()
