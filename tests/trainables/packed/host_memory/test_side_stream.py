"""Copies beside a device's work come after what was queued before them, and are waited for by their marks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trainables.packed.host_memory import side_stream
from trainables.packed.host_memory.side_stream import SideStream


def test_on_a_cpu_a_copy_is_done_at_once() -> None:
    target, source = torch.zeros(3), torch.arange(3.0)
    mark = SideStream(torch.device("cpu")).copy(target, source)
    assert torch.equal(target, source)
    mark.hold_device()
    mark.hold_host()


class RecordingStream:
    """A stream that writes down what it is asked for."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def wait_stream(self, other: RecordingStream) -> None:
        self.log.append(f"{self.name} waits for {other.name}")

    def wait_event(self, event: Any) -> None:
        self.log.append(f"{self.name} waits for the copy")

    def record_event(self) -> Any:
        self.log.append(f"{self.name} marks")
        return SimpleNamespace(synchronize=lambda: self.log.append("the host waits"))

    def __enter__(self) -> None:
        self.log.append("in")

    def __exit__(self, *rest: object) -> None:
        self.log.append("out")


def test_on_a_card_a_copy_comes_after_the_work_and_the_work_after_the_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of what is asked of streams, which stand-ins write down."""
    log: list[str] = []
    main, side = RecordingStream(log, "main"), RecordingStream(log, "side")
    streams = SimpleNamespace(Stream=lambda device: side, current_stream=lambda device: main, stream=lambda one: one)
    monkeypatch.setattr(side_stream.torch, "cuda", streams)
    mark = SideStream(torch.device("cuda", 0)).copy(torch.zeros(1), torch.ones(1))
    mark.hold_device()
    mark.hold_host()
    assert log == ["side waits for main", "in", "side marks", "out", "main waits for the copy", "the host waits"]
