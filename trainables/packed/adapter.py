"""Holds one adapter's low-rank weights, their initialization, and which rows of a batch are its own."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from search_spaces.footprint import Footprint
from search_spaces.resolution import resolve
from search_spaces.trial_config import TrialConfig


@dataclass(frozen=True)
class LoraWeights:
    """One adapter's pair at one linear layer: `a` is rank x in_features, `b` is out_features x rank, both fp32."""

    a: nn.Parameter
    b: nn.Parameter


class LoraAdapter:
    """The trainable weights of one trial over a base model, keyed by the name of the linear layer they update."""

    def __init__(self, config: TrialConfig, weights: Mapping[str, LoraWeights]) -> None:
        self.config = config
        self.weights = dict(weights)

    @classmethod
    def fresh(
        cls, config: TrialConfig, linears: Mapping[str, nn.Linear], device: torch.device | None = None
    ) -> LoraAdapter:
        """Initializes an adapter for the target modules among a model's linear layers, by their full names.

        Its weights are on `device`, or each on that of its layer. Raises TargetError where the model lacks a target.
        """
        names = resolve(config.target_modules, config.layers, linears)
        return cls(config, {name: initial_weights(linears[name], name, config, device) for name in names})

    def parameters(self) -> list[nn.Parameter]:
        """Lists all weights, in the base model's order of layers, A before B."""
        return [parameter for pair in self.weights.values() for parameter in (pair.a, pair.b)]

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """Returns the weights by name, as `named_tensors` does, in the order of `parameters`."""
        pairs = self.weights.items()
        return {f"{layer}.{name}": one for layer, w in pairs for name, one in (("lora_A", w.a), ("lora_B", w.b))}

    def named_tensors(self) -> dict[str, torch.Tensor]:
        """Returns the weights by name, as PEFT names them under a layer: `LAYER.lora_A`, `LAYER.lora_B`."""
        return {name: parameter.detach() for name, parameter in self.named_parameters().items()}

    @property
    def trainable_parameters(self) -> int:
        """The count of numbers that the optimizer updates."""
        return sum(parameter.numel() for parameter in self.parameters())


@dataclass(frozen=True)
class PackedRows:
    """The part of a batch that belongs to one adapter.

    `rows` are its rows. `tokens` is the length of its own longest row (None: the batch's), so that padding which only
    other adapters brought is left out, and dropout masks are the same in a pack and alone. `dropout_key` numbers the
    micro-step; None turns dropout off.
    """

    adapter: LoraAdapter
    rows: slice
    tokens: int | None = None
    dropout_key: int | None = None

    @property
    def dropout(self) -> bool:
        """Whether the adapter's input has dropout here."""
        return self.dropout_key is not None and self.adapter.config.lora_dropout > 0


def by_likeness(adapters: Sequence[LoraAdapter | None]) -> list[int]:
    """Returns the adapters' places, those of one footprint next to each other: their rows then share products.

    The base model (None) comes first; alike ones stay in their order.
    """
    return sorted(range(len(adapters)), key=lambda place: _likeness(adapters[place]))


def _likeness(adapter: LoraAdapter | None) -> tuple[object, ...]:
    return (True, Footprint.of(adapter.config)) if adapter else (False,)


def initial_weights(
    linear: nn.Linear, name: str, config: TrialConfig, device: torch.device | None = None
) -> LoraWeights:
    """Draws A uniform in +-1 / sqrt(in_features), as PEFT does, and sets B to 0 (Hu et al. 2021, arXiv 2106.09685).

    A depends on the trial's seed and the layer's name alone, and is the same on every device: `device`, or the layer's.
    On a `device` that the layer is not on, where weights only wait, B takes no memory.
    """
    generator = torch.Generator().manual_seed(mixed_seed(config.seed, name, -1))  # on the CPU
    bound = 1 / math.sqrt(linear.in_features)
    a = torch.empty(config.rank, linear.in_features).uniform_(-bound, bound, generator=generator)
    home, shape = linear.weight.device, (linear.out_features, config.rank)
    b = torch.zeros(shape, device=home) if device in (None, home) else memoryless_zeros(shape)
    return LoraWeights(nn.Parameter(a.to(device or home)), nn.Parameter(b))


def memoryless_zeros(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Returns zeros in host memory that are to be read only: all of them are the same number."""
    return torch.zeros((), dtype=dtype).expand(tuple(shape))


def mixed_seed(seed: int, *parts: object) -> int:
    """Returns a seed of 63 bits for each (seed, parts), the same on every machine."""
    return (seed * 0x9E3779B1 + zlib.crc32(":".join(map(str, parts)).encode())) % 2**63
