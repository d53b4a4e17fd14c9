"""An exception's tensors are freed before anything else is done, and a lack of memory is told from other errors."""

from __future__ import annotations

import gc
import traceback
import weakref

import pytest
import torch

from trainables.engine.release import drop_frames, empty_caches, out_of_memory, release, settle

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def deep(held: list[weakref.ref[torch.Tensor]], levels: int) -> None:
    """Raises from so many frames down, each of which holds a tensor and, in a cycle, the exception."""
    tensor = torch.ones(8)
    held.append(weakref.ref(tensor))
    if levels == 0:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    try:
        deep(held, levels - 1)
    except Exception as error:
        kept = error  # noqa: F841  as libraries do, and frame and exception hold each other
        if levels % 2:
            raise ValueError("on the way") from error
        raise


def raised_from(levels: int) -> tuple[Exception, list[weakref.ref[torch.Tensor]]]:
    held: list[weakref.ref[torch.Tensor]] = []
    try:
        deep(held, levels)
    except Exception as error:
        return error, held
    raise AssertionError("it must raise")


@pytest.mark.parametrize("levels", [0, 1, 2, 5])
@pytest.mark.parametrize(("free", "said"), [(drop_frames, True), (release, False)])
def test_the_tensors_of_all_frames_are_freed_while_the_exception_lives(levels: int, free, said: bool) -> None:
    gc.disable()
    try:
        error, held = raised_from(levels)
        assert all(one() is not None for one in held)  # that is what a retry would meet
        free(error)
        assert [one() for one in held] == [None] * (levels + 1)
        assert ("in deep" in "".join(traceback.format_exception(error))) == said  # it can still be described
    finally:
        gc.enable()


def test_frames_that_still_run_keep_what_is_theirs() -> None:
    mine = torch.ones(3)
    try:
        raise MemoryError
    except MemoryError as error:
        release(error)
    assert mine.sum() == 3


@pytest.mark.parametrize(
    ("error", "of_card", "of_cpu"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True, True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), True, True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True, True),
        (RuntimeError("Triton Error [CUDA]: out of memory"), True, True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), False, True),
        (MemoryError(), False, True),  # of the host: no smaller pass on the card mends it
        (RuntimeError("expected all tensors to be on the same device"), False, False),
        (ValueError("a row tells of being out of memory"), False, False),
        (KeyError("out of memory"), False, False),
    ],
)
def test_what_counts_as_a_lack_of_the_devices_memory(error: Exception, of_card: bool, of_cpu: bool) -> None:
    assert (out_of_memory(error, CUDA), out_of_memory(error, CPU)) == (of_card, of_cpu)


def test_what_has_settled_is_searched_no_more_and_what_comes_later_is() -> None:
    class Node:
        pass

    def cycle() -> weakref.ref[Node]:
        one, other = Node(), Node()
        one.other, other.other = other, one  # type: ignore[attr-defined]
        return weakref.ref(one)

    garbage = cycle()
    try:
        settle()
        assert garbage() is None
        assert gc.get_freeze_count() > 10_000
        later = cycle()
        empty_caches()
        assert later() is None
    finally:
        gc.unfreeze()
