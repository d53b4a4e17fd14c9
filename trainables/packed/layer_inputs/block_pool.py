"""Keeps blocks of host memory from pass to pass, since page-locking them takes longer than filling them."""

from __future__ import annotations

import torch

from trainables.packed.host_memory.tensor_block import host_block


class BlockPool:
    """Blocks of one device's copies; which are in use is known here, when a copy has used them is not."""

    def __init__(self, pinned: bool) -> None:
        """`pinned`: blocks are page-locked."""
        self._pinned = pinned
        self._free: list[torch.Tensor] = []

    def take(self, nbytes: int) -> torch.Tensor:
        """Returns the smallest free block of at least so many bytes, uint8, or else a new one in a smaller one's place.

        A new one is of a power of two of bytes, which is what torch's allocator of page-locked memory takes anyway.
        Raises MemoryError where the host has no more.
        """
        self._free.sort(key=len)
        fitting = [place for place, block in enumerate(self._free) if len(block) >= nbytes]
        if fitting:
            return self._free.pop(fitting[0])
        if self._free:
            self._free.pop()
        return host_block(1 << (nbytes - 1).bit_length(), self._pinned)

    def give(self, block: torch.Tensor) -> None:
        """Takes a block back; whoever gets it next must use it after all copies that were asked for before."""
        self._free.append(block)
