"""Frees what an exception holds, and tells a lack of memory from other errors.

The stack frames of an exception hold every tensor of the pass that failed until it is forgotten. Whatever is moved to
the device before that meets a device that is still full.
"""

from __future__ import annotations

import gc
import re
import traceback
from collections.abc import Iterator

import torch

from trainables.measure.process_memory import release_free_memory

# What CUDA's libraries say beside torch's allocator: they take memory of their own, and raise a plain RuntimeError.
_OF_A_CARD = re.compile(r"out of memory|CU(BLAS|DNN|SPARSE|SOLVER)_STATUS_ALLOC_FAILED", re.I)
_OF_THE_HOST = re.compile(r"can't allocate memory|DefaultCPUAllocator", re.I)


def out_of_memory(error: BaseException, device: torch.device) -> bool:
    """Whether the error is a lack of memory of the device: a card's own, or on a CPU that of the machine.

    Where the device is a card, a lack of the machine's memory is another error: no smaller pass would mend it.
    """
    text = str(error)
    of_host = isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(_OF_THE_HOST.search(text)))
    if of_host:
        return device.type == "cpu"
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and bool(_OF_A_CARD.search(text))
    )


def drop_frames(error: BaseException) -> None:
    """Clears the local variables of the frames that an exception, and those behind it, came through.

    Frames that still run keep theirs. Files and line numbers stay, so that it can be described afterwards.
    """
    for one in _chain(error):
        traceback.clear_frames(one.__traceback__)


def release(error: BaseException) -> None:
    """Drops all that an exception holds, which is forgotten next, and gives free memory back to card and system."""
    for one in list(_chain(error)):
        traceback.clear_frames(one.__traceback__)
        one.__traceback__ = None
    empty_caches()


def empty_caches() -> None:
    """Frees what only cycles of references hold, and what the allocators keep of what is free."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    release_free_memory()


def settle() -> None:
    """Leaves all that is there now out of later searches for cycles of references: it stays until the process ends.

    Libraries and a base model are some million objects; a search among them takes a third of a second, at each
    footprint and each lack of memory.
    """
    gc.collect()
    gc.freeze()


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, and those that it was raised from or while handling, each once."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
