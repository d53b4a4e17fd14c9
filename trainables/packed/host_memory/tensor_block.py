"""Lays tensors out one after another in one block of memory, so that they move in one copy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from trainables.host_pages.pages import locked_block

ALIGNED_BYTES = 64  # where each tensor begins in its block


@dataclass(frozen=True)
class Place:
    """Where a block holds a tensor of this shape and type: from byte `start` on."""

    shape: torch.Size
    dtype: torch.dtype
    start: int

    @property
    def nbytes(self) -> int:
        """The tensor's own bytes."""
        return self.shape.numel() * self.dtype.itemsize

    @property
    def end(self) -> int:
        """Where the next tensor may begin."""
        return self.start + math.ceil(self.nbytes / ALIGNED_BYTES) * ALIGNED_BYTES

    def view(self, block: torch.Tensor) -> torch.Tensor:
        """Returns the tensor as a view of a block of uint8."""
        return block[self.start : self.start + self.nbytes].view(self.dtype).view(self.shape)


def placed(tensors: Sequence[torch.Tensor], start: int = 0) -> tuple[list[Place], int]:
    """Returns the places of tensors like these, one after another from byte `start` on, and where the last one ends."""
    places: list[Place] = []
    end = start
    for tensor in tensors:
        places.append(Place(tensor.shape, tensor.dtype, end))
        end = places[-1].end
    return places, end


def host_block(nbytes: int, devices: Iterable[torch.device] = ()) -> torch.Tensor:
    """Returns a block of host memory, uint8, of any content, at its exact size.

    Where there are cards among the `devices` it is page-locked, so that their copies need no CPU; it is freed only once
    they are done. Raises MemoryError where the host has no more for that.
    """
    cards = tuple(dict.fromkeys(device for device in devices if device.type == "cuda"))
    if not cards:
        return torch.empty(nbytes, dtype=torch.uint8)
    try:
        return locked_block(nbytes, cards)
    except MemoryError as error:
        text = f"{nbytes / 2**20:.0f} MiB of page-locked host memory must be free; they could not be had ({error})"
        raise MemoryError(f"{text}. Give the machine more memory, or train fewer adapters at a time.") from error
