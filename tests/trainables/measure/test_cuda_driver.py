"""The driver is asked without torch; where there is none, there are no cards. The driver is stood in for."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest

from trainables.measure import cuda_driver
from trainables.measure.cuda_driver import DriverCard, visible_cards

UUIDS = (bytes(range(16)), bytes(range(16, 32)))


def driver(maps: tuple[int, ...], fails: str = "") -> Any:
    def cu(name: str, work: Any) -> Any:
        return lambda *arguments: 100 if name == fails else work(*arguments) or 0

    def uuid(out: Any, card: Any) -> None:
        ctypes.memmove(out, UUIDS[card.value], 16)

    def put(value: Any) -> Any:
        return lambda out, *rest: setattr(out._obj, "value", value(*rest))

    return SimpleNamespace(
        cuInit=cu("cuInit", lambda flags: 0),
        cuDeviceGetCount=cu("cuDeviceGetCount", put(lambda: len(maps))),
        cuDeviceGet=cu("cuDeviceGet", put(lambda number: number)),
        cuDeviceGetAttribute=cu("cuDeviceGetAttribute", put(lambda attribute, card: maps[card.value])),
        cuDeviceGetUuid=cu("cuDeviceGetUuid", uuid),
    )


def test_cards_have_the_uuid_that_nvml_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver.ctypes, "CDLL", lambda name: driver((1, 0)))
    assert visible_cards() == (
        DriverCard("00010203-0405-0607-0809-0a0b0c0d0e0f", True),
        DriverCard("10111213-1415-1617-1819-1a1b1c1d1e1f", False),
    )


@pytest.mark.parametrize("fails", ["cuInit", "cuDeviceGetCount", "cuDeviceGet", "cuDeviceGetAttribute"])
def test_a_driver_that_refuses_has_no_cards(monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    monkeypatch.setattr(cuda_driver.ctypes, "CDLL", lambda name: driver((1,), fails))
    assert visible_cards() == ()


def test_without_a_driver_there_are_no_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> None:
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(cuda_driver.ctypes, "CDLL", none)
    assert visible_cards() == ()
