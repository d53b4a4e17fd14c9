"""Takes host memory at its exact size, and lets cards copy from and to it by themselves (page-locked, "pinned").

Not torch's own pinned memory: its allocator rounds each block up to a power of two, 512 MiB for an fp16 layer of
416 MiB. Nor is memory locked before it is filled: the driver would then clear it page by page, on one thread.
"""

from __future__ import annotations

import contextlib
import mmap
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

GIB = 2**30
PORTABLE = 1  # cudaHostRegisterPortable: for all cards of the process
CONTROL_GROUP = Path("/sys/fs/cgroup")  # a container's, version 2


class HostPages:
    """A block of host memory in pages of its own, which are taken as they are written; `block` is it as uint8.

    The memory lives as long as `block` or a view of it. Where cards may copy from or to it, it is unlocked and freed
    only once all that they were asked for is done, copies that are under way among it.
    """

    def __init__(self, nbytes: int) -> None:
        """Raises MemoryError where there is no more."""
        rounded = max(1, -(-nbytes // mmap.PAGESIZE)) * mmap.PAGESIZE  # pages of two blocks must not be locked twice
        try:
            self._pages = _Pages(-1, rounded, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError(f"the system refuses them: {error}") from error
        self.block = torch.frombuffer(self._pages, dtype=torch.uint8)[:nbytes]

    def lock(self, cards: Sequence[torch.device]) -> None:
        """Lets these cards copy by themselves, until the memory is freed. Raises MemoryError where that is refused."""
        begin = self.block.data_ptr()
        if error := int(torch.cuda.cudart().cudaHostRegister(begin, len(self._pages), PORTABLE)):
            _forget_error(cards[0])
            raise MemoryError(f"the card's driver refuses to lock their pages, by error {error}")
        self._pages.begin, self._pages.cards = begin, tuple(cards)


class _Pages(mmap.mmap):
    """Pages that a tensor's storage keeps; `cards` may copy from and to them from `begin` on, while they are locked."""

    begin = 0
    cards: tuple[torch.device, ...] = ()

    def __del__(self) -> None:  # before they are unmapped, unlike callbacks of a weak reference
        if not self.cards or sys.is_finalizing():  # a process' end frees all
            return
        try:
            for card in self.cards:
                torch.cuda.synchronize(card)
        finally:
            torch.cuda.cudart().cudaHostUnregister(self.begin)


def locked_block(nbytes: int, cards: Sequence[torch.device]) -> torch.Tensor:
    """Returns `nbytes` uint8 of page-locked host memory, of any content. Raises MemoryError where there are no more."""
    if nbytes > (left := available_bytes()):  # or the system would end the process
        raise MemoryError(f"{left / GIB:.2f} GiB are left")
    pages = HostPages(nbytes)
    pages.block[:: mmap.PAGESIZE] = 0
    pages.lock(cards)
    return pages.block


def available_bytes() -> int:
    """Returns the bytes of host memory that this process may still take, its container's limit included."""
    left = psutil.virtual_memory().available
    try:
        limit = (CONTROL_GROUP / "memory.max").read_text().strip()
        if limit != "max":
            used = int((CONTROL_GROUP / "memory.current").read_text())
            counts = (line.split() for line in (CONTROL_GROUP / "memory.stat").read_text().splitlines())
            cache = sum(int(value) for name, value in counts if name in ("inactive_file", "active_file"))
            left = min(left, int(limit) - used + cache)
    except (OSError, ValueError):
        pass  # no container, or one of another kind
    return max(0, left)


def _forget_error(card: torch.device) -> None:
    """Takes the refused call's error from the CUDA runtime, or torch would raise it after its next kernel's launch."""
    with contextlib.suppress(RuntimeError):
        torch.empty(1, device=card).fill_(0)
