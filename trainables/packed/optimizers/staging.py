"""Gives optimizer states in host memory two buffers on each card, which adapters' updates take in turn.

While one part is updated in its buffer the next one's copy into the other is under way, behind the copy that takes the
part before home.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from trainables.memory.offload import STAGED_STATE_BYTES
from trainables.packed.host_memory.side_stream import CopyMark, SideStream
from trainables.packed.host_memory.tensor_block import Place
from trainables.packed.optimizers.rule import State


@dataclass(frozen=True, eq=False)
class Part:
    """Parameters of one device, what is kept of them in one stretch of host memory (uint8), and where in it."""

    device: torch.device
    host: torch.Tensor
    places: Mapping[torch.Tensor, Mapping[str, Place]]

    def states(self, block: torch.Tensor) -> dict[torch.Tensor, State]:
        """Returns what is kept, by parameter, as views of a block."""
        return {
            parameter: {name: place.view(block) for name, place in places.items()}
            for parameter, places in self.places.items()
        }


class Staging:
    """The buffers of all cards, shared by all adapters of an engine."""

    def __init__(self, staged_bytes: int = STAGED_STATE_BYTES, devices: Sequence[torch.device] = ()) -> None:
        """`staged_bytes` is a buffer's size; a parameter that needs more makes it larger.

        On `devices` the buffers are there from now on, on others from the first adapter on.
        """
        self.staged_bytes = staged_bytes
        self._lanes = {device: Lane(device, staged_bytes) for device in devices}

    def lane(self, device: torch.device) -> Lane:
        """Returns the buffers of one device."""
        if device not in self._lanes:
            self._lanes[device] = Lane(device, self.staged_bytes)
        return self._lanes[device]

    def forget(self) -> None:
        """Uses nothing that was fetched ahead: what it is a copy of may change."""
        for lane in self._lanes.values():
            lane.forget()


@dataclass(frozen=True)
class _Fetched:
    part: Part
    buffer: torch.Tensor
    mark: CopyMark


class Lane:
    """One device's two buffers, and the stream that fills and empties them."""

    def __init__(self, device: torch.device, staged_bytes: int) -> None:
        self._device = device
        self._side = SideStream(device)
        self._buffers = self._made(staged_bytes)
        self._turn = 0
        self._ahead: _Fetched | None = None
        self._last_copy: CopyMark | None = None

    def _made(self, nbytes: int) -> list[torch.Tensor]:
        return [torch.empty(nbytes, dtype=torch.uint8, device=self._device) for _ in range(2)]

    def make_room(self, nbytes: int) -> None:
        """Makes the buffers at least so large. Raises torch.OutOfMemoryError, and leaves them, where there is none."""
        if nbytes > self._buffers[0].nbytes:
            self.forget()
            if self._last_copy:
                self._last_copy.hold_device()  # whoever gets the old buffers' memory comes after it
            self._buffers = self._made(nbytes)

    def forget(self) -> None:
        """Uses nothing that was fetched ahead."""
        self._ahead = None

    def fetch(self, part: Part) -> None:
        """Starts the copy of a part to the device, unless it is under way."""
        if self._ahead and self._ahead.part is part:
            return
        self._turn = 1 - self._turn
        buffer = self._buffers[self._turn][: part.host.nbytes]
        self._ahead = _Fetched(part, buffer, self._copy(buffer, part.host))

    def take(self, part: Part) -> torch.Tensor:
        """Returns the part on the device, in a buffer that stays its own until the fetch after the next."""
        self.fetch(part)
        assert self._ahead is not None
        fetched, self._ahead = self._ahead, None
        fetched.mark.hold_device()
        return fetched.buffer

    def write_back(self, part: Part, buffer: torch.Tensor) -> CopyMark:
        """Starts the copy of an updated part to host memory."""
        return self._copy(part.host, buffer)

    def _copy(self, target: torch.Tensor, source: torch.Tensor) -> CopyMark:
        self._last_copy = self._side.copy(target, source)
        return self._last_copy
