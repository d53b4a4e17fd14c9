"""Counts what a study has cost: the hours of the cards that it held, and their price, also over interruptions."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from study.errors import StoreError
from study.hardware.targets import Target
from study.records.files import write_whole
from study.records.layout import COST_FILE
from study.records.study_files import read_object

SECONDS_PER_HOUR = 3600.0


@contextmanager
def counted(
    directory: Path, target: Target | None, price_per_hour: float | None, clock: Callable[[], float] = time.monotonic
) -> Iterator[None]:
    """Adds the time that is spent inside to the study's cost, however it ends; nothing where it holds no cards."""
    began = clock()
    try:
        yield
    finally:
        if target is not None and target.card is not None:
            file = directory / COST_FILE
            facts = cost_of(target, seconds_before(file) + clock() - began, price_per_hour)
            with suppress(OSError):  # a full disk: the study's end says so where it costs more than this number
                write_whole(file, json.dumps(facts, indent=1) + "\n")


def cost_of(target: Target, seconds: float, price_per_hour: float | None) -> dict[str, Any]:
    """Returns the cost of holding the target's cards so long, JSON-ready; the price is None where it is not known.

    `price_per_hour` (USD, of one card) overrides the catalogue's.
    """
    card = target.card
    assert card is not None
    listed = price_per_hour is None
    price = card.price_per_hour if listed else price_per_hour
    hours = seconds * target.count / SECONDS_PER_HOUR
    source = f"{card.price_source}, {card.price_as_of}" if listed and price is not None else None
    return {
        "seconds": seconds,
        "cards": target.count,
        "card": card.name,
        "gpu_hours": hours,
        "price_per_hour": price,
        "price_usd": None if price is None else hours * price,
        "price_source": source,
    }


def seconds_before(file: Path) -> float:
    """Returns the seconds that the study took before it was interrupted; 0 where nothing is known of it."""
    try:
        seconds = float(read_object(file, "")["seconds"])
    except (StoreError, ValueError, KeyError, TypeError, OverflowError):
        return 0.0
    return seconds if math.isfinite(seconds) and seconds >= 0 else 0.0
