"""Holds what a probe found of a decoder: its sizes, its linear layers and its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trainables.base_model.probe.counted_layer import CountedLayer

Size = tuple[int, ...]


@dataclass(frozen=True)
class LayerLinear:
    """A linear layer of the decoder's layers: its full name, its sizes, and whether it has a bias."""

    name: str
    in_features: int
    out_features: int
    has_bias: bool = False


@dataclass(frozen=True)
class DecoderFacts:
    """A decoder as transformers builds it of its configuration, without weights.

    `linears` are those of all layers, in the model's order. `tensors` are the parameters by their names in a file,
    tied ones once; `tied` the others' names, by which a file may have them, with those that they stand for. `prefix` is
    what a file of the decoder without its head leaves out of names. `renamings` are patterns of names that files may
    have instead, with what stands for them (`re.sub`), in turn. `counted` are the bytes that one layer
    needs.
    """

    model_type: str
    layers: int
    hidden_size: int
    intermediate_size: int
    attention_heads: int
    key_value_heads: int
    head_dim: int
    vocab_size: int
    tie_word_embeddings: bool
    max_positions: int | None  # None: its positions have no end
    linears: tuple[LayerLinear, ...]
    tensors: Mapping[str, Size]
    tied: Mapping[str, str]
    prefix: str
    renamings: tuple[tuple[str, str], ...] = ()
    counted: CountedLayer | None = None

    @property
    def parameter_count(self) -> int:
        """All parameters, tied ones once."""
        return sum(map(_product, self.tensors.values()))

    @property
    def other_parameters(self) -> int:
        """The parameters that are neither linear weights of layers nor embeddings."""
        tables = 1 if self.tie_word_embeddings else 2
        in_layers = sum(one.in_features * one.out_features for one in self.linears)
        return self.parameter_count - tables * self.vocab_size * self.hidden_size - in_layers

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DecoderFacts:
        """Reads the form of `to_json`. Raises KeyError or TypeError for another."""
        linears = tuple(LayerLinear(**one) for one in values["linears"])
        tensors = {name: tuple(size) for name, size in values["tensors"].items()}
        renamings = tuple((pattern, name) for pattern, name in values["renamings"])
        counted = None if values["counted"] is None else CountedLayer.from_json(values["counted"])
        return cls(**{**values, "linears": linears, "tensors": tensors, "renamings": renamings, "counted": counted})


def _product(size: Size) -> int:
    product = 1
    for one in size:
        product *= one
    return product
