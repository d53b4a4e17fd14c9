"""Keeps blocks of host memory from pass to pass, since page-locking them takes longer than filling them."""

from __future__ import annotations

import torch

from trainables.packed.host_memory.tensor_block import host_block


class BlockPool:
    """Blocks of one device's copies, for the engine's life; page-locked, at their exact size, where it is a card.

    Which are in use is known here. When a copy has used them is not: those that make way for larger ones wait for all
    of the card's work before they are freed (`trainables.host_pages.pages`).
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._free: list[torch.Tensor] = []

    def take(self, nbytes: int) -> torch.Tensor:
        """Returns the smallest free block of at least so many bytes, uint8, or else a new one in a smaller one's place.

        Raises MemoryError where the host has no more.
        """
        self._free.sort(key=len)
        fitting = [place for place, block in enumerate(self._free) if len(block) >= nbytes]
        if fitting:
            return self._free.pop(fitting[0])
        if self._free:
            self._free.pop()
        return host_block(nbytes, (self._device,))

    def give(self, block: torch.Tensor) -> None:
        """Takes a block back; whoever gets it next must use it after all copies that were asked for before."""
        self._free.append(block)
