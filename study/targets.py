"""The hardware to plan for: named in the catalogue, found in this machine, or its processor. (no torch, no ray)"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from study.calibration import calibration_for
from study.fitting import Target
from study.gpu_catalogue import GpuCard, card_of
from study.hardware import Card

USABLE_SHARE = 0.97  # of what NVML calls a card's memory, CUDA can have; the catalogue knows it of its own cards
CPU = "cpu"  # whose calibration is one for all processors: libraries take what they take


def gpu_target(
    card: GpuCard, count: int, engine: int, per_node: int | None = None, limit_bytes: int | None = None
) -> Target:
    """`count` such cards, `per_node` of them in one machine (None: all), calibrated by what was measured on such."""
    calibration = calibration_for(card.key, "cuda", engine)
    return Target(card, card.memory_bytes, count, per_node or count, calibration, limit_bytes)


def cpu_target(
    memory_bytes: int, engine: int, count: int = 1, limit_bytes: int | None = None, computes_bf16: bool | None = None
) -> Target:
    """Machines without a card; `computes_bf16` None: as this machine's processor."""
    bf16 = cpu_multiplies_bf16() if computes_bf16 is None else computes_bf16
    calibration = calibration_for(CPU, "cpu", engine)
    return Target(None, memory_bytes, count, 1, calibration, limit_bytes, bf16)


def card_here(found: Card) -> GpuCard:
    """The catalogue's card for one that NVML found; one that it does not have is known by its memory alone."""
    known = card_of(found)
    if known is not None:
        return known
    major, minor = map(int, (found.compute_capability or "0.0").split("."))
    return GpuCard(
        key=found.name,
        name=found.name,
        memory_bytes=int(USABLE_SHARE * (found.memory_bytes or 0)),
        compute_capability=(major, minor),
        bandwidth_bytes_per_second=None,
        tensor_flops=None,
        product_efficiency=1.0,
        bandwidth_efficiency=1.0,
        measured=False,
        price_per_hour=None,
        price_as_of="",
        price_source="",
    )


def smallest_here(found: tuple[Card, ...]) -> tuple[GpuCard, int] | None:
    """This machine's cards as so many of the smallest: what fits there fits all. None without a card."""
    cards = [card_here(card) for card in found]
    return (min(cards, key=lambda card: card.memory_bytes), len(cards)) if cards else None


def cpu_multiplies_bf16(information: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor has AVX512-BF16 or AMX, as torch is asked in `trainables.base_model`."""
    with suppress(OSError):
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("flags"):
                return bool({"avx512_bf16", "amx_bf16"} & set(line.split()))
    return False
