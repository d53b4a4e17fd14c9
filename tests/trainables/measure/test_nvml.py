"""NVML is asked by UUID, and what it does not know is None. NVML itself is stood in for: no card is needed."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from study.checkout import CHECKOUT
from trainables.measure.nvml import device_energy_joules, device_used_bytes

CUDA = torch.device("cuda", 1)
UUID = "11111111-2222-3333-4444-555555555555"


@pytest.fixture(autouse=True)
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card whose UUID torch and NVML agree upon; NVML's number for it would be another."""

    def handle(uuid: bytes) -> str:
        if uuid != f"GPU-{UUID}".encode():
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return "handle"

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=UUID))
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", handle)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda handle: SimpleNamespace(used=7 * 2**30))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", lambda handle: 12_345)


def failing(code: int) -> Any:
    def fail(*args: object) -> None:
        raise pynvml.NVMLError(code)

    return fail


def test_bytes_and_joules() -> None:
    assert device_used_bytes(CUDA) == 7 * 2**30
    assert device_energy_joules(CUDA) == 12.345  # NVML counts millijoules


@pytest.mark.parametrize(
    ("function", "code"),
    [
        ("nvmlInit", pynvml.NVML_ERROR_LIBRARY_NOT_FOUND),
        ("nvmlDeviceGetHandleByUUID", pynvml.NVML_ERROR_NOT_FOUND),
    ],
)
def test_without_nvml_both_are_unknown(function: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, function, failing(code))
    assert device_used_bytes(CUDA) is None
    assert device_energy_joules(CUDA) is None


def test_a_card_without_an_energy_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", failing(pynvml.NVML_ERROR_NOT_SUPPORTED))
    assert device_energy_joules(CUDA) is None
    assert device_used_bytes(CUDA) == 7 * 2**30


def test_a_processor_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", failing(pynvml.NVML_ERROR_UNKNOWN))
    assert device_used_bytes(torch.device("cpu")) is None
    assert device_energy_joules(torch.device("cpu")) is None


def test_of_the_package_s_own_name_nothing_is_said_and_of_all_else_it_is() -> None:
    """Each room imports NVML first in a process of its own; another warning of the same kind is still shown."""
    for room in ("trainables", "study.hardware.machine"):
        script = f"import warnings, {room}, pynvml; warnings.warn('This matters', FutureWarning)"
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=True)
        assert "pynvml package" not in done.stderr
        assert "FutureWarning: This matters" in done.stderr
