"""The process' resident peak: what stands for a card's memory where the base model lives on the CPU. (no torch)"""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

SAMPLE_SECONDS = 0.01
# glibc's mallopt(3): from which size on a block is a mapping of its own, and how much is kept free at the heap's end.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MEASURING = (128 * 2**10, 0)
# Where glibc's own sliding thresholds end up in a process that frees large tensors: the heap keeps them for the next.
_USUAL = (32 * 2**20, 64 * 2**20)


@contextmanager
def resident_peak() -> Iterator[list[int]]:
    """The highest resident set within the block, in bytes; the one item of the list is known after it.

    What was freed before the block does not count, nor what the heap would keep of what is freed within: else the
    figure would depend on which holes the heap happens to have, by a tenth for a small model.
    """
    answer = [0]
    gc.collect()
    _set_heap(*_MEASURING)
    try:
        release_free_memory()
        if _reset_high_water_mark():
            yield answer
            answer[0] = _high_water_mark()
        else:
            with _sampled(answer):
                yield answer
    finally:
        _set_heap(*_USUAL)


def release_free_memory() -> None:
    """Gives freed heap memory back to the system."""
    _glibc(lambda libc: libc.malloc_trim(0))


def _set_heap(mapped_from_bytes: int, kept_free_bytes: int) -> None:
    _glibc(lambda libc: libc.mallopt(_M_MMAP_THRESHOLD, mapped_from_bytes))
    _glibc(lambda libc: libc.mallopt(_M_TRIM_THRESHOLD, kept_free_bytes))


def _glibc(call: Callable[[Any], int]) -> None:
    try:
        call(ctypes.CDLL("libc.so.6"))
    except (OSError, AttributeError):
        return  # another C library: the figure is then an upper bound


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
def _sampled(answer: list[int]) -> Iterator[None]:
    """Keeps the highest of frequent samples, of which the first and the last are the block's ends."""
    done, process = threading.Event(), psutil.Process()

    def sample() -> None:
        answer[0] = max(answer[0], process.memory_info().rss)

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
