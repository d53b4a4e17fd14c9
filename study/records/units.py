"""Reads and writes byte quantities as people write them: `14.56 GiB`."""

from __future__ import annotations

import re
from decimal import Decimal

GIB = 2**30
UNITS: dict[str, int] = {
    "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
HIGHEST_BYTES = 2**60
_QUANTITY = re.compile(r"([0-9]{1,25}(?:\.[0-9]{1,25})?)\s*([A-Za-z]+)", re.ASCII)
_BY_NAME = {name.lower(): size for name, size in UNITS.items()}


def parse_bytes(text: str) -> int:
    """Returns a quantity such as `14.56 GiB` in bytes, rounded to a whole byte; upper and lower case do not matter.

    Raises ValueError with the rule: a number above 0 with a unit of bytes, at most 2**60 bytes.
    """
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[2].lower() not in _BY_NAME:
        raise ValueError(f"must be a number with a unit of {', '.join(UNITS)}")
    size = round(Decimal(match[1]) * _BY_NAME[match[2].lower()])
    if not 1 <= size <= HIGHEST_BYTES:
        raise ValueError(f"must be from 1 B to {HIGHEST_BYTES // 2**40} TiB")
    return size


def format_bytes(size: float) -> str:
    """Returns bytes as people read them, rounded to two digits: `14.56 GiB`."""
    # What the smaller unit would round to 1024.00 takes the larger one: 1023.999 KiB is 1 MiB.
    unit = next((name for name in ("TiB", "GiB", "MiB", "KiB") if abs(size) >= UNITS[name] * (1 - 0.005 / 1024)), "B")
    return f"{size / UNITS[unit]:.2f}".rstrip("0").rstrip(".") + f" {unit}"


def format_gib(size: float) -> str:
    """Bytes for columns and sentences about memory: GiB with two digits, below a tenth of one MiB with one."""
    return f"{size / GIB:,.2f} GiB" if size >= GIB / 10 else f"{size / UNITS['MiB']:,.1f} MiB"


def exact_bytes(size: int) -> str:
    """Returns bytes as files hold them: `parse_bytes` reads exactly this size back."""
    text = format_bytes(size)
    return text if parse_bytes(text) == size else f"{size} B"
