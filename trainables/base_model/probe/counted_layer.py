"""Holds the bytes that one layer of a decoder without a form needs, as they were counted.

`trainables.base_model.probe.counting` counts them where torch is; here they are read where it is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Attends = Literal["forward", "backward"]


@dataclass(frozen=True)
class Growth:
    """Bytes that grow with a pass: `fixed`, and so many for each token and for each pair of tokens of a row."""

    fixed: int
    of_token: int
    of_pair: int

    def bytes_at(self, rows: int, width: int) -> int:
        """Returns the bytes of so many rows of `width` tokens."""
        return self.fixed + rows * width * (self.of_token + width * self.of_pair) if rows else 0

    def __add__(self, other: Growth) -> Growth:
        return Growth(self.fixed + other.fixed, self.of_token + other.of_token, self.of_pair + other.of_pair)

    def __sub__(self, other: Growth) -> Growth:
        return Growth(self.fixed - other.fixed, self.of_token - other.of_token, self.of_pair - other.of_pair)


@dataclass(frozen=True)
class CountedMoment:
    """A moment of a layer's backward: bytes beside what it keeps.

    `linear` is the linear layer whose weight is used then, by its name below the layer. `attends`: within the
    attention, forward or backward, whose kernel may need more.
    """

    beside_kept: Growth
    linear: str | None = None
    attends: Attends | None = None


@dataclass(frozen=True)
class ReadTogether:
    """Linear layers that read the same tensor, by their names below the layer, and the tensor's width."""

    names: tuple[str, ...]
    width: int
    is_kept: bool  # whether the layer keeps the tensor anyway

    def holds(self, name: str) -> bool:
        """Whether a linear layer is among them, by its name or the end of it."""
        return any(f".{own}".endswith(f".{name}") for own in self.names)


@dataclass(frozen=True)
class Attending:
    """What torch's attention is called with; None of it where a layer computes scores by itself."""

    heads: int
    key_heads: int
    head_dim: int
    masked: bool  # a mask is given, which FlashAttention does not take


@dataclass(frozen=True)
class CountedBytes:
    """A layer's bytes with activations of one type.

    `kept`: beside its input, for its backward; `keeps_input`: whether it keeps its input, too. `moments`: those that no
    other outweighs, of the backward and of the forward computed again. `prompt`: moments of a forward without backward.
    `shared`: what all layers read, such as masks and angles.
    """

    kept: Growth
    keeps_input: bool
    moments: tuple[CountedMoment, ...]
    prompt: tuple[CountedMoment, ...]
    shared: Growth
    inputs: tuple[ReadTogether, ...]


@dataclass(frozen=True)
class CountedLayer:
    """The bytes of one layer of a model of `model_type`, with activations of 2 and of 4 bytes."""

    model_type: str
    attending: Attending | None
    half: CountedBytes
    full: CountedBytes

    def of(self, number_bytes: int) -> CountedBytes:
        """Returns the bytes with activations of 2 or 4 bytes."""
        return {2: self.half, 4: self.full}[number_bytes]

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> CountedLayer:
        """Reads the form of `to_json`."""
        attending = values["attending"]
        return cls(
            values["model_type"],
            None if attending is None else Attending(**attending),
            _bytes_of(values["half"]),
            _bytes_of(values["full"]),
        )


def _bytes_of(values: Mapping[str, Any]) -> CountedBytes:
    return CountedBytes(
        kept=Growth(**values["kept"]),
        keeps_input=values["keeps_input"],
        moments=_moments(values["moments"]),
        prompt=_moments(values["prompt"]),
        shared=Growth(**values["shared"]),
        inputs=tuple(ReadTogether(tuple(one["names"]), one["width"], one["is_kept"]) for one in values["inputs"]),
    )


def _moments(values: Sequence[Mapping[str, Any]]) -> tuple[CountedMoment, ...]:
    return tuple(CountedMoment(Growth(**one["beside_kept"]), one["linear"], one["attends"]) for one in values)
