"""Low-rank updates of several adapters over one frozen base model.

The rows of a batch are grouped by adapter. A frozen linear layer runs once over all rows; then each adapter adds its own
update to its own rows: h = W0 x + (alpha / r) B A x, with B = 0 at the start (Hu et al. 2021, arXiv 2106.09685).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from search_spaces.trial_config import MODULE_NAMES, TrialConfig


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

    def parameters(self) -> list[nn.Parameter]:
        """All weights, in the base model's order of layers, A before B."""
        return [parameter for pair in self.weights.values() for parameter in (pair.a, pair.b)]

    def named_tensors(self) -> dict[str, torch.Tensor]:
        """Weights by name, as PEFT names them under a layer: `LAYER.lora_A`, `LAYER.lora_B`."""
        return {
            f"{layer}.{name}": tensor.detach()
            for layer, pair in self.weights.items()
            for name, tensor in (("lora_A", pair.a), ("lora_B", pair.b))
        }

    @property
    def trainable_parameters(self) -> int:
        """How many numbers the optimizer updates."""
        return sum(parameter.numel() for parameter in self.parameters())


@dataclass(frozen=True)
class PackedRows:
    """Which part of a batch belongs to one adapter.

    `rows` are its rows. `tokens` is the length of its own longest row (None: the batch's), so that padding which only
    the company brought is left out, and dropout masks are the same with and without company. `dropout_key` numbers the
    micro-step; None turns dropout off.
    """

    adapter: LoraAdapter
    rows: slice
    tokens: int | None = None
    dropout_key: int | None = None


@dataclass
class PackContext:
    """What the layers need to know of the batch that is going through: shared by all, set around forward and backward."""

    members: Sequence[PackedRows] = field(default_factory=tuple)


class PackedLoraLinear(nn.Module):
    """A frozen linear layer that adds each adapter's update to that adapter's rows."""

    def __init__(self, base: nn.Module, name: str, context: PackContext) -> None:
        super().__init__()
        self.base = base
        self.name = name
        self.context = context

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` is rows x tokens x in_features; the answer is rows x tokens x out_features, in the base's type."""
        y = self.base(x)
        members = [member for member in self.context.members if self.name in member.adapter.weights]
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
    """(alpha / r) B A dropout(x): products in the type of `x`, weights cast to it as autocast would."""
    config = member.adapter.config
    pair = member.adapter.weights[name]
    if config.lora_dropout > 0 and member.dropout_key is not None:
        x = x * dropout_mask(config, name, member.dropout_key, x)
    low = nn.functional.linear(x, pair.a.to(x.dtype))
    return nn.functional.linear(low, pair.b.to(x.dtype)) * config.scaling


def dropout_mask(config: TrialConfig, name: str, key: int, like: torch.Tensor) -> torch.Tensor:
    """0 with probability `lora_dropout`, else 1 / (1 - lora_dropout); decided by (seed, layer, micro-step) alone.

    Neither recomputation under checkpointing nor the other members of a pack change it. Shape and type of `like`.
    """
    generator = torch.Generator(device=like.device)
    generator.manual_seed(_seed(config.seed, name, key))
    keep = torch.rand(like.shape, generator=generator, device=like.device) >= config.lora_dropout
    return keep.to(like.dtype) / (1 - config.lora_dropout)


def _seed(seed: int, name: str, key: int) -> int:
    return (seed * 0x9E3779B1 + zlib.crc32(f"{name}:{key}".encode())) % 2**63


class PackedModel:
    """A Llama-like causal model whose linear layers carry several adapters at once."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.context = PackContext()
        self.linears = _wrap_linears(model, self.context)
        if not self.linears:
            raise ValueError(f"the model must have linear layers named {', '.join(MODULE_NAMES)}; it has none of them")

    @contextmanager
    def rows_of(self, members: Sequence[PackedRows]) -> Iterator[nn.Module]:
        """The model, with its next batches' rows belonging to `members` (sorted by row); wraps forward and backward."""
        self.context.members = tuple(members)
        try:
            yield self.model
        finally:
            self.context.members = ()

    @property
    def device(self) -> torch.device:
        """Where the input embedding is, and so where token ids go."""
        return self.model.get_input_embeddings().weight.device

    @property
    def head(self) -> torch.Tensor:
        """The output head's weight, vocabulary x hidden."""
        return self.model.get_output_embeddings().weight

    def new_adapter(self, config: TrialConfig) -> LoraAdapter:
        """A fresh adapter: A uniform in +-1 / sqrt(in_features) as in PEFT, from its own generator; B = 0."""
        weights = {
            name: _new_weights(layer.base, name, config)
            for name, layer in self.linears.items()
            if name.rsplit(".", 1)[-1] in config.target_modules
        }
        return LoraAdapter(config, weights)


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


def _new_weights(base: nn.Module, name: str, config: TrialConfig) -> LoraWeights:
    generator = torch.Generator().manual_seed(_seed(config.seed, name, -1))  # on the CPU: equal on every device
    bound = 1 / math.sqrt(base.in_features)
    a = torch.empty(config.rank, base.in_features).uniform_(-bound, bound, generator=generator)
    b = torch.zeros(base.out_features, config.rank)
    device = base.weight.device
    return LoraWeights(nn.Parameter(a.to(device)), nn.Parameter(b.to(device)))
