"""Asks the CUDA driver about this process' cards without torch, and without a context on any of them."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any
from uuid import UUID

_VIRTUAL_MEMORY_MANAGEMENT = 102  # CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED


@dataclass(frozen=True)
class DriverCard:
    """A card that this process sees, in its own order: the UUID that NVML knows it by, and what it can do."""

    uuid: str
    maps_memory: bool  # the driver can map memory into addresses that were reserved before


def visible_cards() -> tuple[DriverCard, ...]:
    """The cards that CUDA_VISIBLE_DEVICES leaves this process; none where there is no driver."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
        _ask(cuda.cuInit(0))
        count = ctypes.c_int()
        _ask(cuda.cuDeviceGetCount(ctypes.byref(count)))
        return tuple(_card(cuda, number) for number in range(count.value))
    except (OSError, AttributeError, _DriverError):
        return ()


class _DriverError(Exception):
    """The driver has refused a question."""


def _ask(code: int) -> None:
    if code != 0:
        raise _DriverError(code)


def _card(cuda: Any, number: int) -> DriverCard:
    card, maps, uuid = ctypes.c_int(), ctypes.c_int(), (ctypes.c_ubyte * 16)()
    _ask(cuda.cuDeviceGet(ctypes.byref(card), number))
    _ask(cuda.cuDeviceGetAttribute(ctypes.byref(maps), _VIRTUAL_MEMORY_MANAGEMENT, card))
    _ask(cuda.cuDeviceGetUuid(uuid, card))
    return DriverCard(str(UUID(bytes=bytes(uuid))), bool(maps.value))
