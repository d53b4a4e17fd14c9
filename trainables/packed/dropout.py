"""Applies dropout to LoRA inputs, by masks that (seed, layer, micro-step) alone decide.

Neither recomputation under checkpointing nor the other members of a pack change a mask. On a card one kernel serves all
rows of a pack with a counter-based generator; elsewhere each adapter's mask comes from a torch generator of its own.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

import torch

from search_spaces.trial_config import TrialConfig
from trainables.kernels import elementwise
from trainables.packed.adapter import PackedRows, mixed_seed


def dropout_mask(config: TrialConfig, name: str, key: int, like: torch.Tensor) -> torch.Tensor:
    """Draws a mask: 0 with probability `lora_dropout`, else 1 / (1 - lora_dropout).

    `like` is rows x tokens x features; the mask has its shape and type. (seed, layer, micro-step) alone decide it.
    """
    if elementwise.fused(like):
        rows, tokens, features = like.shape
        thinning = Thinning([(config, key, rows)], like.device)
        return thinning.apply(torch.ones_like(like).view(-1, features), name, tokens).view_as(like)
    generator = torch.Generator(device=like.device)
    generator.manual_seed(mixed_seed(config.seed, name, key))
    keep = torch.rand(like.shape, generator=generator, device=like.device) >= config.lora_dropout
    return keep.to(like.dtype).div_(1 - config.lora_dropout)


class Thinning:
    """Dropout of several adapters' rows by one kernel, which knows each row's adapter and its number there."""

    def __init__(self, parts: Sequence[tuple[TrialConfig, int, int]], device: torch.device) -> None:
        keys = [mixed_seed(config.seed, key) for config, key, rows in parts for _ in range(rows)]
        self._keys = torch.tensor(keys, device=device)
        self._numbers = torch.tensor([row for _, _, rows in parts for row in range(rows)], device=device)
        self._rates = torch.tensor([c.lora_dropout for c, _, rows in parts for _ in range(rows)], device=device)

    def apply(self, x: torch.Tensor, name: str, tokens: int, add_to: torch.Tensor | None = None) -> torch.Tensor:
        """Returns `x` ((rows * tokens) x features) after dropout, as a new tensor or added to `add_to`."""
        layer = zlib.crc32(name.encode())
        return elementwise.thin(x, self._keys, self._numbers, self._rates, layer, tokens, add_to)


def thinned_by(member: PackedRows) -> TrialConfig:
    """Returns the configuration that decides a member's mask in a run with dropout: of rate 0 where it has none."""
    config = member.adapter.config
    return config if member.dropout else replace(config, lora_dropout=0.0)


class Dropout:
    """The masks of a run of neighbouring rows at one linear layer; inputs are (rows * tokens) x features."""

    def __init__(
        self, members: Sequence[PackedRows], thinning: Thinning | None, name: str, tokens: int, weight: torch.Tensor
    ) -> None:
        """`weight` has the inputs' type, and their features as its last dimension."""
        self._name, self._tokens, self._thinning = name, tokens, thinning
        self._mask = weight.new_empty(0) if thinning else _masks(members, name, tokens, weight)

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """Returns `x` after dropout, a new tensor."""
        return x * self._mask if self._thinning is None else self._thinning.apply(x, self._name, self._tokens)

    def add(self, x: torch.Tensor, total: torch.Tensor) -> None:
        """Adds `x` after dropout to `total`, in place."""
        if self._thinning is None:
            total.addcmul_(x, self._mask)
        else:
            self._thinning.apply(x, self._name, self._tokens, add_to=total)


def _masks(members: Sequence[PackedRows], name: str, tokens: int, weight: torch.Tensor) -> torch.Tensor:
    """Returns the members' masks one under the other; padding beyond a member's own longest row is masked out."""
    masks = []
    for member in members:
        shape = (member.rows.stop - member.rows.start, member.tokens or tokens, weight.shape[-1])
        own = dropout_mask(thinned_by(member), name, member.dropout_key or 0, weight.new_empty(()).expand(shape))
        masks.append(torch.nn.functional.pad(own, (0, 0, 0, tokens - own.shape[1])) if own.shape[1] < tokens else own)
    return (masks[0] if len(masks) == 1 else torch.cat(masks)).view(-1, weight.shape[-1])
