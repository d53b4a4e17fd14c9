"""Sets how torch's CUDA allocator takes memory in a host, before torch is imported there."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

from trainables.measure.cuda_driver import visible_cards

# Every version of torch that we take reads the first; a user may have set any of them.
SETTINGS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
EXPANDABLE = "expandable_segments:True"


def use_expandable_segments(environment: MutableMapping[str, str] = os.environ) -> bool:
    """Lets the allocator's segments grow, so that rows of unlike length leave fewer holes; returns whether it does.

    Not where the user has said how it is to work, nor where a card's driver cannot map memory. A limit of memory
    (`set_per_process_memory_fraction`) holds as before: torch counts what is mapped.
    """
    if any(name in environment for name in SETTINGS) or not _supported():
        return False
    environment[SETTINGS[0]] = EXPANDABLE
    return True


def _supported() -> bool:
    cards = visible_cards()
    return sys.platform == "linux" and bool(cards) and all(card.maps_memory for card in cards)
