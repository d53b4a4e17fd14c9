"""Calls every elementwise operation in each form that a family has: what plain torch and kernels are tested on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch

TOKENS, ROWS, HEADS, HEAD_DIM = 5, 3, 6, 12
KEY_HEADS = (2, HEADS)
TURNING = (None, 8, HEAD_DIM)  # numbers of a head that turn
ACTIVATIONS = ("silu", "gelu_tanh")

Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class KernelCase:
    """One operation of `trainables.kernels.elementwise` in one form; `arguments` makes new tensors of a type."""

    operation: str
    form: str
    arguments: Callable[[torch.dtype, str], Arguments]

    def __str__(self) -> str:
        return f"{self.operation}: {self.form}"


def drawn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0, device: str = "cpu") -> torch.Tensor:
    """Draws normal numbers, the same on each device."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def angles(width: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Returns cos and sin of `TOKENS` positions for the first `width` numbers of a head."""
    turns = torch.arange(TOKENS)[:, None] / 10 ** torch.linspace(0, 2, width // 2)
    both = torch.cat((turns, turns), dim=-1)
    return both.cos().to(device, dtype), both.sin().to(device, dtype)


def heads(key_heads: int, dtype: torch.dtype = torch.float32, device: str = "cpu", joined: bool = False) -> Arguments:
    """Returns queries, keys and values; `joined`: as parts of one projection's output."""
    counts = (HEADS, key_heads, key_heads)
    whole = drawn(ROWS * TOKENS, sum(counts), HEAD_DIM, dtype=dtype, device=device)
    parts = whole.split(counts, dim=1)
    return parts if joined else tuple(part.contiguous() for part in parts)


def halves(width: int, dtype: torch.dtype = torch.float32, device: str = "cpu", joined: bool = False) -> Arguments:
    """Returns a gate and an up projection's output; `joined`: as the halves of one tensor."""
    parts = drawn(7, 2 * width, dtype=dtype, device=device, seed=5).chunk(2, dim=1)
    return parts if joined else tuple(part.contiguous() for part in parts)


def rows(width: int, dtype: torch.dtype, device: str, seed: int, apart: bool) -> torch.Tensor:
    """Returns six rows; `apart`: as a part of wider ones."""
    return drawn(6, 2 * width if apart else width, dtype=dtype, device=device, seed=seed)[:, -width:]


def cases() -> list[KernelCase]:
    """Returns the operations that have a plain torch version, in all their forms."""
    return [*_norms(), *_norms_backward(), *_gated(), *_rotations(), *_rotations_backward(), *_losses()]


def _norms() -> Iterator[KernelCase]:
    for width, offset, apart in product((32, 40), (0.0, 1.0), (False, True)):

        def make(dtype, device, width=width, offset=offset, apart=apart):
            weight = drawn(width, dtype=dtype, device=device, seed=1)
            return rows(width, dtype, device, 0, apart), weight, 1e-5, offset

        yield KernelCase("rms_norm", f"{width=} {offset=} {apart=}", make)


def _norms_backward() -> Iterator[KernelCase]:
    for offset, apart, beside in product((0.0, 1.0), (False, True), (False, True)):

        def make(dtype, device, offset=offset, apart=apart, beside=beside):
            grad, x, residual = (rows(40, dtype, device, seed, apart) for seed in range(3))
            weight = drawn(40, dtype=dtype, device=device, seed=3)
            return grad, x, weight, 1e-5, residual if beside else None, offset

        yield KernelCase("rms_norm_backward", f"{offset=} {apart=} residual={beside}", make)


def _gated() -> Iterator[KernelCase]:
    for activation, joined in product(ACTIVATIONS, (False, True)):

        def make(dtype, device, activation=activation, joined=joined):
            return *halves(70, dtype, device, joined), activation

        yield KernelCase("gated", f"{activation} {joined=}", make)
        for activated in (False, True):

            def make_backward(dtype, device, activation=activation, joined=joined, activated=activated):
                grad = drawn(7, 70, dtype=dtype, device=device, seed=2)
                return grad, *halves(70, dtype, device, joined), activated, activation

            yield KernelCase("gated_backward", f"{activation} {joined=} {activated=}", make_backward)


def _rotations() -> Iterator[KernelCase]:
    for key_heads, width, joined in product(KEY_HEADS, TURNING, (False, True)):

        def make(dtype, device, key_heads=key_heads, width=width, joined=joined):
            turns = (None, None) if width is None else angles(width, dtype, device)
            return *heads(key_heads, dtype, device, joined), *turns

        yield KernelCase("rotate", f"{key_heads=} {width=} {joined=}", make)


def _rotations_backward() -> Iterator[KernelCase]:
    for key_heads, width in product(KEY_HEADS, TURNING):

        def make(dtype, device, key_heads=key_heads, width=width):
            turns = (None, None) if width is None else angles(width, dtype, device)
            shape = (ROWS * TOKENS, HEADS, HEAD_DIM)
            grads = (drawn(*shape, dtype=dtype, device=device, seed=seed) for seed in range(3))
            return *grads, *turns, HEADS // key_heads

        yield KernelCase("rotate_backward", f"{key_heads=} {width=}", make)


def _losses() -> Iterator[KernelCase]:
    forms = product((50, 5000), (1.0, 8.0), (None, 5.0), (False, True))
    for vocabulary, divisor, cap, gradient in forms:

        def make(dtype, device, vocabulary=vocabulary, divisor=divisor, cap=cap, gradient=gradient):
            logits = drawn(4, vocabulary, dtype=dtype, device=device) * 3
            targets = torch.tensor([0, 3, vocabulary - 1, 11], device=device)
            return logits, targets, 8.0, gradient, divisor, cap

        yield KernelCase("softmax_nats", f"{vocabulary=} {divisor=} {cap=} {gradient=}", make)
