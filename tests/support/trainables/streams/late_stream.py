"""A stream of copies that are made as late as a card may make them: when something is queued that waits for them."""

from __future__ import annotations

from collections import deque

import torch


class LateStream:
    """Stands in for a `SideStream`: what uses a copy without waiting for it finds what was there before."""

    def __init__(self, device: torch.device) -> None:
        self.waiting: deque[tuple[int, torch.Tensor, torch.Tensor]] = deque()
        self.asked_for = 0

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> LateMark:
        """Notes a copy."""
        self.asked_for += 1
        self.waiting.append((self.asked_for, target, source))
        return LateMark(self, self.asked_for)

    def make(self, number: int) -> None:
        """Makes the copies up to this one, in their order."""
        while self.waiting and self.waiting[0][0] <= number:
            _, target, source = self.waiting.popleft()
            target.copy_(source)


class LateMark:
    """Stands in for a `CopyMark`."""

    def __init__(self, stream: LateStream, number: int) -> None:
        self._stream, self._number = stream, number

    def hold_device(self) -> None:
        """Makes the copies that something queued waits for."""
        self._stream.make(self._number)

    def hold_host(self) -> None:
        """Makes the copies that the host waits for."""
        self._stream.make(self._number)
