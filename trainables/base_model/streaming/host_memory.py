"""Takes host memory for layers' blocks, and lets a card read it by itself (page-locked, "pinned").

Not torch's own pinned memory: its allocator rounds each block up to a power of two, 512 MiB for an fp16 layer of
416 MiB. Nor is memory pinned before it is filled: the driver would then clear it page by page, on one thread.
"""

from __future__ import annotations

import mmap
import weakref
from pathlib import Path

import psutil
import torch

from trainables.base_model.checks.faults import BaseModelError

GIB = 2**30
PORTABLE = 1  # cudaHostRegisterPortable: for all cards of the process
CONTROL_GROUP = Path("/sys/fs/cgroup")  # a container's, version 2


def reserve(nbytes: int) -> torch.Tensor:
    """Returns `nbytes` uint8 of host memory, in pages of their own, which are taken as they are written.

    Raises BaseModelError where there are no more.
    """
    rounded = max(1, -(-nbytes // mmap.PAGESIZE)) * mmap.PAGESIZE  # pages of two blocks must not be pinned twice
    try:
        pages = mmap.mmap(-1, rounded, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise _too_little(nbytes, f"the system refuses them: {error}") from error
    return torch.frombuffer(pages, dtype=torch.uint8)[:nbytes]


def check_room(nbytes: int) -> None:
    """Raises BaseModelError where `nbytes` are more than host memory has left: the system would end the process."""
    left = available_bytes()
    if nbytes > left:
        raise _too_little(nbytes, f"{left / GIB:.2f} GiB are left")


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


def pin(block: torch.Tensor) -> None:
    """Lets cards copy from a block of `reserve` by themselves, until it is freed. Raises BaseModelError if refused."""
    runtime = torch.cuda.cudart()
    begin, pages = block.data_ptr(), -(-block.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    if error := int(runtime.cudaHostRegister(begin, pages, PORTABLE)):
        raise _too_little(block.nbytes, f"the card's driver refuses to lock their pages, by error {error}")
    weakref.finalize(block, runtime.cudaHostUnregister, begin).atexit = False  # a process' end frees all


def _too_little(nbytes: int, found: str) -> BaseModelError:
    return BaseModelError(
        f"layers of the base model that wait in host memory must fit there; {nbytes / GIB:.2f} GiB do not: {found}. "
        "Free host memory, or raise the container's limit; or choose nf4, a smaller base model, a larger card, or "
        "hardware.base_in_host_memory: never."
    )
