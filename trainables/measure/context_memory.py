"""Measures what this process' CUDA context takes of a card, beside what torch's allocator holds.

The context is the driver's own: kernels, their stacks, libraries' handles. Three readings tell it from other processes:
NVML's account of this process, where it has one (in a container it often has none); the rise of the whole card's use
while the context is created; and what the use has risen by since, as far as that is plausible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainables.limits import MOST_CONTEXT_BYTES
from trainables.measure.cuda_driver import visible_cards
from trainables.measure.nvml import device_used_bytes, process_used_bytes, used_bytes_of

MOST_GROWTH_BYTES = 2**29  # of a context after it was created, as kernels are loaded when they are first called
_opened: dict[int, Opened] = {}  # by the card's number: a process has one context a card


@dataclass(frozen=True)
class Opened:
    """The whole card's use before this process' context was created, and what the context took then."""

    before_bytes: int
    context_bytes: int


def open_contexts(devices: Sequence[torch.device]) -> None:
    """Creates this process' context on each card, and notes what it takes; before anything else touches the cards.

    Another process that comes or goes in that moment (about a second) falsifies the reading; what is not plausible is
    not noted.
    """
    uuids = [card.uuid for card in visible_cards()]
    for device in devices:
        number = device.index or 0
        before = used_bytes_of(uuids[number]) if number < len(uuids) else None
        _touch(device)
        after = device_used_bytes(device)
        if before is None or after is None:
            continue
        taken = after - before - torch.cuda.memory_reserved(device)
        if 0 < taken <= MOST_CONTEXT_BYTES - MOST_GROWTH_BYTES:
            _opened[number] = Opened(before, taken)


def context_bytes(device: torch.device) -> int | None:
    """What this process' context takes of a card now; None where it cannot be told."""
    reserved = torch.cuda.memory_reserved(device)
    return estimate(process_used_bytes(device), device_used_bytes(device), reserved, _opened.get(device.index or 0))


def estimate(
    process_bytes: int | None, card_bytes: int | None, reserved_bytes: int, opened: Opened | None
) -> int | None:
    """Returns the context's bytes, at most `MOST_CONTEXT_BYTES`; None where no reading is plausible.

    `process_bytes` is NVML's account of this process, `card_bytes` the whole card's use, `reserved_bytes` the
    allocator's. A process that came since the context was created makes the card's use rise, one that went makes it
    fall below what the context took at first: then that first reading stands.
    """
    if process_bytes is not None and 0 < process_bytes - reserved_bytes <= MOST_CONTEXT_BYTES:
        return process_bytes - reserved_bytes
    if opened is None:
        return None
    since = -1 if card_bytes is None else card_bytes - reserved_bytes - opened.before_bytes
    grown = 0 <= since - opened.context_bytes <= MOST_GROWTH_BYTES
    return since if grown else opened.context_bytes


def _touch(device: torch.device) -> None:
    """Creates the context, and has the library of matrix products loaded, which every training needs."""
    for dtype in (torch.float32, torch.float16):
        one = torch.ones(64, 64, dtype=dtype, device=device)
        (one @ one).sum()
    torch.cuda.synchronize(device)
