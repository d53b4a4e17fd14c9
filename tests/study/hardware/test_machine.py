"""The machine's parts, with a stand-in for NVML."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from study.hardware import machine
from study.hardware.machine import Card, Cards, cpu_name, find_cards


class NVML:
    """Two cards; the second keeps memory and capability to itself."""

    class NVMLError(Exception):
        pass

    def __init__(self, starts: bool = True, cards: int = 2) -> None:
        self.starts, self.cards, self.open = starts, cards, 0

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.starts:
            raise self.NVMLError("NVML Shared Library Not Found")
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.cards

    def nvmlSystemGetDriverVersion(self) -> bytes:  # noqa: N802
        return b"550.54"

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802
        return "Tesla T4"

    def nvmlDeviceGetUUID(self, handle: int) -> bytes:  # noqa: N802
        return f"GPU-{handle}".encode()

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        if handle:
            raise self.NVMLError("Not Supported")
        return SimpleNamespace(total=16 * 2**30)

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:  # noqa: N802
        if handle:
            raise self.NVMLError("Not Supported")
        return 7, 5


def test_cards_as_nvml_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = NVML()
    monkeypatch.setattr(machine, "pynvml", nvml)
    both = (Card("Tesla T4", "GPU-0", 16 * 2**30, "7.5"), Card("Tesla T4", "GPU-1", None, None))
    assert find_cards() == Cards(both, "550.54", None)
    assert nvml.open == 0
    facts = machine.hardware()
    assert [gpu["name"] for gpu in facts["gpus"]] == ["Tesla T4", "Tesla T4"]
    assert facts["driver"] == "550.54"


def test_a_machine_without_nvml_has_no_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "pynvml", NVML(starts=False))
    assert find_cards() == Cards(reason="NVML Shared Library Not Found")
    assert machine.hardware()["gpus"] == []


def test_a_driver_without_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "pynvml", NVML(cards=0))
    assert find_cards() == Cards((), "550.54", "NVML knows of no card")


def test_cpu_name(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t: a b\n")
    assert cpu_name(file) == "Some CPU @ 2 GHz"
    assert cpu_name(tmp_path / "missing")
