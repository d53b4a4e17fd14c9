"""Takes the process' resident peak, which stands for a card's memory where the base model is on the CPU."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

SAMPLE_SECONDS = 0.01
MAPPED_FROM_BYTES = 128 * 2**10  # while a peak is taken; smaller tensors are too few to matter
LARGEST_HOLE_BYTES = 2**30

# glibc's mallopt(3): how much is kept free at the heap's end, and from which size on a block is a mapping of its own.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# Where glibc's own sliding thresholds end up in a process that frees large tensors.
_USUAL_TRIM_BYTES, _USUAL_MAPPED_FROM_BYTES = 64 * 2**20, 32 * 2**20
_IS_MAPPED = 2  # in the word before a block


@contextmanager
def resident_peak() -> Iterator[list[int]]:
    """The highest resident set within the block, in bytes; the one item of the list is known after it.

    What was freed before does not count, nor what the heap would keep of what is freed within.
    """
    peak = [0]
    gc.collect()
    with _exact_heap():
        if _reset_high_water_mark():
            yield peak
            peak[0] = _high_water_mark()
        else:
            with _sampled(peak):
                yield peak


def release_free_memory() -> None:
    """Gives freed heap memory back to the system."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


@contextmanager
def _exact_heap() -> Iterator[None]:
    """Every tensor is a mapping of its own, returned when it is freed.

    A heap instead keeps what is freed, and fills its holes as they happen to lie: the peak of one training step of a
    135-million-parameter model then differs by up to a fifth from one time to the next.
    """
    libc = _glibc()
    if libc is None:
        yield  # another C library: the figure is an upper bound
        return
    libc.mallopt(_M_MMAP_THRESHOLD, MAPPED_FROM_BYTES)
    libc.mallopt(_M_TRIM_THRESHOLD, 0)
    libc.malloc_trim(0)  # before the holes are filled, so that what fills them is not resident
    held = _fill_holes(libc)
    try:
        yield
    finally:
        for block in held:
            libc.free(block)
        libc.mallopt(_M_MMAP_THRESHOLD, _USUAL_MAPPED_FROM_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _USUAL_TRIM_BYTES)


def _fill_holes(libc: Any) -> list[int]:
    """Allocates all that is free within the heap; the blocks are never touched, so they are not resident."""
    held: list[int] = []
    size = LARGEST_HOLE_BYTES
    while size >= MAPPED_FROM_BYTES:
        block = libc.malloc(size)
        if block and not ctypes.c_size_t.from_address(block - ctypes.sizeof(ctypes.c_size_t)).value & _IS_MAPPED:
            held.append(block)
        else:
            libc.free(block)
            size //= 2
    return held


def _glibc() -> Any | None:
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
        return libc if libc.mallopt and libc.malloc_trim else None
    except (OSError, AttributeError):
        return None


def _reset_high_water_mark() -> bool:
    """Whether the kernel has set its own high-water mark to what is resident now (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _high_water_mark() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return psutil.Process().memory_info().rss


@contextmanager
def _sampled(peak: list[int]) -> Iterator[None]:
    """Keeps the highest of frequent samples, of which the first and the last are the block's ends."""
    done, process = threading.Event(), psutil.Process()

    def sample() -> None:
        peak[0] = max(peak[0], process.memory_info().rss)

    def sample_on() -> None:
        while not done.wait(SAMPLE_SECONDS):
            sample()

    sampler = threading.Thread(target=sample_on, daemon=True)
    sample()
    sampler.start()
    try:
        yield
    finally:
        done.set()
        sampler.join()
        sample()
