"""Reads the catalogue of cards: their memory, speed and price."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.errors import UserError
from study.records.units import format_bytes, parse_bytes
from study.strict_yaml import read_yaml
from trainables.precision import Processor

if TYPE_CHECKING:
    from study.hardware.machine import Card

CATALOGUE = Path(__file__).with_suffix(".yaml")
SAME_MEMORY = 0.12  # cards of one name whose memory differs by less, relatively, are the same
_MARKS = re.compile(r"nvidia|tesla|geforce|-?(sxm|pcie|pci-e|hbm)\w*|[^a-z0-9]")


class UnknownGpuError(UserError):
    """A card that the catalogue does not have; the message names those it has."""


@dataclass(frozen=True)
class GpuCard:
    """One kind of card.

    `memory_bytes` is what CUDA reports as its total. The efficiencies are the parts of the peaks (dense fp16 tensor
    products, memory bandwidth) that training reaches; `measured` tells measured ones from assumed ones. The bus is that
    from page-locked host memory, `host_memory_bytes` a card's part of a usual machine's memory; None: not known.
    """

    key: str
    name: str
    memory_bytes: int
    compute_capability: tuple[int, int]
    bandwidth_bytes_per_second: float | None  # None: not known
    tensor_flops: float | None
    product_efficiency: float
    bandwidth_efficiency: float
    measured: bool
    price_per_hour: float | None  # USD
    price_as_of: str
    price_source: str
    bus_bytes_per_second: float | None = None
    host_memory_bytes: int | None = None

    @property
    def processor(self) -> Processor:
        """The card as what computes."""
        return Processor(self.name, self.compute_capability)

    @property
    def summary(self) -> str:
        """The card in a few words."""
        major, minor = self.compute_capability
        return f"{self.name}, {format_bytes(self.memory_bytes)}, compute capability {major}.{minor}"


@cache
def catalogue() -> Mapping[str, GpuCard]:
    """All cards by key, as a study file names them (`t4`, `a100-80`, …)."""
    return {key: _card(key, values) for key, values in read_yaml(CATALOGUE).items()}


def find_gpu(name: str) -> GpuCard:
    """The card of that key, or of a name as NVIDIA writes it. Raises UnknownGpuError."""
    cards = catalogue()
    key = name.strip().lower().replace("_", "-").replace(" ", "-")
    if key in cards:
        return cards[key]
    wanted = _plain(name)
    for card in cards.values():
        if wanted and wanted in (_plain(card.key), _plain(card.name)):
            return card
    raise UnknownGpuError(f"hardware.gpu must be one of {', '.join(cards)}, auto or cpu; it is {name!r}.")


def card_of(found: Card) -> GpuCard | None:
    """The catalogue's card for one that NVML found, with that card's own memory; None where there is none like it."""
    plain = _plain(found.name)
    same = [card for card in catalogue().values() if plain.startswith(_family(card))]
    if found.memory_bytes is None:
        return same[0] if len(same) == 1 else None
    for card in same:
        if abs(card.memory_bytes / found.memory_bytes - 1) <= SAME_MEMORY:
            return card
    return None


def is_of_kind(name: str, card: GpuCard) -> bool:
    """Whether a card of that name, as CUDA writes it, is one of these."""
    return _plain(name).startswith(_family(card)) or name == card.name


def _card(key: str, values: Mapping[str, Any]) -> GpuCard:
    major, minor = values["compute_capability"]
    return GpuCard(
        key=key,
        name=values["name"],
        memory_bytes=parse_bytes(values["memory"]),
        compute_capability=(major, minor),
        bandwidth_bytes_per_second=values["bandwidth"] * 1e9,
        tensor_flops=values["tensor_tflops"] * 1e12,
        product_efficiency=values["product_efficiency"],
        bandwidth_efficiency=values["bandwidth_efficiency"],
        measured=values["measured"],
        price_per_hour=values["price_per_hour"],
        price_as_of=values["price_as_of"],
        price_source=values["price_source"],
        bus_bytes_per_second=values["bus"] * 1e9,
        host_memory_bytes=parse_bytes(values["host_memory"]),
    )


def _plain(name: str) -> str:
    """A name without maker, line and connector: `NVIDIA A100-SXM4-80GB` and `a100-80` are both `a10080gb`, `a10080`."""
    return _MARKS.sub("", name.lower())


def _family(card: GpuCard) -> str:
    return _plain(card.key.split("-")[0])
