"""Says which layer is in which of a card's buffers, and which buffer the next one may overwrite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Buffers:
    """The buffers of a card at one moment, by their numbers; each change returns a new one.

    `layers` names the layer in each, or on its way there. `order` lists the buffers, first those whose layer has not
    been at work, then the one that was longest ago. `at_work` is the buffer whose layer computes: until that work is
    queued it is never given to another layer.
    """

    layers: tuple[int | None, ...]
    order: tuple[int, ...]
    at_work: int | None = None

    @classmethod
    def empty(cls, count: int) -> Buffers:
        """Returns `count` buffers without a layer."""
        return cls((None,) * count, tuple(range(count)))

    def holding(self, layer: int) -> int | None:
        """Returns the buffer that a layer is in; None where it is in none."""
        return self.layers.index(layer) if layer in self.layers else None

    @property
    def free(self) -> int | None:
        """The buffer that the next layer goes to, the first in order that is not at work; None where there is none."""
        return next((buffer for buffer in self.order if buffer != self.at_work), None)

    def filled(self, buffer: int, layer: int) -> Buffers:
        """Puts a layer into a buffer in another's place."""
        layers = tuple(layer if place == buffer else held for place, held in enumerate(self.layers))
        return replace(self, layers=layers, order=(buffer, *self._others(buffer)))

    def working(self, buffer: int) -> Buffers:
        """Puts a buffer's layer to work."""
        return replace(self, order=(*self._others(buffer), buffer), at_work=buffer)

    def released(self) -> Buffers:
        """Ends the work of the layer at work: all of it is queued."""
        return replace(self, at_work=None)

    def _others(self, buffer: int) -> tuple[int, ...]:
        return tuple(other for other in self.order if other != buffer)


class Travel:
    """Expects which layer follows, from the order of the layers and from what followed the last time.

    A pass goes through the layers upwards, its backward pass downwards; where one ends and the next begins differs
    between training, evaluation and generation, and repeats itself.
    """

    def __init__(self, layers: Sequence[int]) -> None:
        """`layers` are those that are streamed, in their order."""
        self._layers = tuple(layers)
        self._before: int | None = None
        self._now: int | None = None
        self._followed: dict[tuple[int | None, int | None], int] = {}

    def to(self, layer: int) -> int | None:
        """Notes a layer that is put to work; returns the one expected after it, None: no other."""
        self._followed[self._before, self._now] = layer
        self._before, self._now = self._now, layer
        return self._followed.get((self._before, layer), self._next_one())

    def _next_one(self) -> int | None:
        """Returns the next layer in the direction of travel; at either end the way goes back."""
        assert self._now is not None
        place, last = self._layers.index(self._now), len(self._layers) - 1
        came_down = self._before is not None and self._layers.index(self._before) > place
        step = 1 if place == 0 else -1 if came_down or place == last else 1
        return self._layers[place + step] if last else None
