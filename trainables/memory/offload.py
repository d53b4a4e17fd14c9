"""Names what of a training waits in host memory while its card does not need it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

STREAM_BUFFERS = 3  # layers' weights that a card has room for: the one at work, the next, and the one before
STAGED_STATE_BYTES = 32 * 2**20  # a card's two buffers for moments are so large each; larger where one parameter's are


@dataclass(frozen=True, order=True)
class Offload:
    """What waits in host memory; nothing by default. It changes where bytes are and how long a step takes, no number.

    `layers` counts the decoder layers whose frozen linear weights are streamed, spread evenly (`streamed_layers`).
    `embedding`: the input embedding is looked up in host memory, where it is not tied to the output head.
    `optimizer_state`: moments come to the card for an adapter's update alone. `layer_inputs`: what gradient
    checkpointing keeps of each layer goes to host memory and comes back for the backward pass.
    """

    layers: int = 0
    embedding: bool = False
    optimizer_state: bool = False
    layer_inputs: bool = False

    @property
    def is_none(self) -> bool:
        """Whether everything is resident on the card."""
        return self == RESIDENT

    @property
    def streams(self) -> bool:
        """Whether a part of the base model is in host memory."""
        return self.layers > 0 or self.embedding

    @property
    def words(self) -> str:
        """What waits in host memory, for people: `32 layers and moments`; empty where nothing does."""
        return self.words_of()

    def words_of(self, layers: int | None = None) -> str:
        """The same of a model of so many layers: `20 of 32 layers and moments`."""
        streamed = f"{self.layers} layer{'s' * (self.layers != 1)}"
        parts = {
            streamed if layers is None else f"{self.layers} of {layers} layers": self.layers > 0,
            "embedding": self.embedding,
            "moments": self.optimizer_state,
            "layer inputs": self.layer_inputs,
        }
        *first, last = [name for name, waits in parts.items() if waits] or [""]
        return f"{', '.join(first)} and {last}" if first else last

    def to_dict(self) -> dict[str, Any]:
        """Its values, JSON-ready."""
        return dict(vars(self))


RESIDENT = Offload()


def streamed_layers(count: int, layers: int) -> tuple[int, ...]:
    """Returns which of `layers` layers are streamed where `count` are, spread evenly: between them others compute."""
    return tuple(place for place in range(layers) if place * count // layers != (place + 1) * count // layers)
