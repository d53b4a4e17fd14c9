"""Lays tensors out one after another in one block of memory, so that they move in one copy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

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


def host_block(nbytes: int, pinned: bool) -> torch.Tensor:
    """Returns a block of host memory, uint8, of any content; `pinned`: page-locked, so that copies need no CPU.

    Raises MemoryError where the host has none: what CUDA says then reads like a lack of the card's memory.
    """
    try:
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=pinned)
    except RuntimeError as error:
        if not pinned:
            raise
        text = f"{nbytes / 2**20:.0f} MiB of page-locked host memory must be free; they could not be had ({error})"
        raise MemoryError(f"{text}. Give the machine more memory, or train fewer adapters at a time.") from error
