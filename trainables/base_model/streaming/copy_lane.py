"""Carries blocks from host memory into buffers, beside what the card computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from trainables.base_model.streaming.layer_block import LayerBlock


class CopyLane(Protocol):
    """Copies into numbered buffers, in the order of its calls."""

    def copy(self, block: LayerBlock, buffer: int) -> None:
        """Copies a block into a buffer, once the work that was noted for the buffer is done."""

    def await_copy(self, buffer: int) -> None:
        """Lets what is queued from now on wait for the last copy into a buffer."""

    def work_is_queued(self, buffer: int) -> None:
        """Notes that the next copy into a buffer is to wait for what has been queued until now."""


def lane_to(buffers: Sequence[torch.Tensor]) -> CopyLane:
    """Returns the lane of the buffers' device."""
    return CardLane(buffers) if buffers[0].is_cuda else HostLane(buffers)


class HostLane:
    """Copies at once: on a processor whatever was asked for is done."""

    def __init__(self, buffers: Sequence[torch.Tensor]) -> None:
        self._buffers = buffers

    def copy(self, block: LayerBlock, buffer: int) -> None:
        """Copies a block into a buffer."""
        block.copy_to(self._buffers[buffer])

    def await_copy(self, buffer: int) -> None:
        """Does nothing: the copy is done."""

    def work_is_queued(self, buffer: int) -> None:
        """Does nothing: the work is done."""


class CardLane:
    """Copies on a CUDA stream of its own; events alone tie it to the stream that computes, and nothing waits here.

    The buffers may be freed while a copy into them is under way, as the one of a layer that never came: the allocator
    is told of the stream, and gives their memory to others after it.
    """

    def __init__(self, buffers: Sequence[torch.Tensor]) -> None:
        self._buffers = buffers
        self._device = buffers[0].device
        self._stream = torch.cuda.Stream(self._device)
        self._copied = [torch.cuda.Event() for _ in buffers]
        self._worked = [torch.cuda.Event() for _ in buffers]
        for buffer, memory in enumerate(buffers):
            memory.record_stream(self._stream)
            self.work_is_queued(buffer)  # what had their memory before may still be at work

    def copy(self, block: LayerBlock, buffer: int) -> None:
        """Queues the copy of a block into a buffer."""
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(self._worked[buffer])
            block.copy_to(self._buffers[buffer])
            self._copied[buffer].record(self._stream)

    def await_copy(self, buffer: int) -> None:
        """Lets the stream that computes wait for the last copy into a buffer."""
        torch.cuda.current_stream(self._device).wait_event(self._copied[buffer])

    def work_is_queued(self, buffer: int) -> None:
        """Notes what the stream that computes has been given until now as the buffer's work."""
        self._worked[buffer].record(torch.cuda.current_stream(self._device))
