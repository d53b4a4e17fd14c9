"""Copies between host memory and a device on a stream of its own, while the device computes."""

from __future__ import annotations

import torch


class SideStream:
    """A device's stream of copies, one after another; on a CPU a copy is done when it is asked for."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> CopyMark:
        """Queues a copy after all that the device's current stream has queued so far, and after earlier copies.

        So the source is computed, and whoever used the target's memory is done with it. Both must live on until the
        copy is waited for.
        """
        if self._stream is None:
            target.copy_(source)
            return CopyMark(self._device, None)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            target.copy_(source, non_blocking=True)
            return CopyMark(self._device, self._stream.record_event())


class CopyMark:
    """The end of one copy."""

    def __init__(self, device: torch.device, event: torch.cuda.Event | None) -> None:
        self._device = device
        self._event = event

    def hold_device(self) -> None:
        """Lets the device's current stream go on only once the copy is done; the host does not wait."""
        if self._event is not None:
            torch.cuda.current_stream(self._device).wait_event(self._event)

    def hold_host(self) -> None:
        """Waits until the copy is done."""
        if self._event is not None:
            self._event.synchronize()
