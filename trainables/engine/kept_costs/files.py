"""Keeps measured costs of footprints in the user's cache, for later studies on the same hardware to take over.

A file each, `costs/KEY.json` in the cache of the host's own node; KEY is of all that the measurement depends on, which
the file repeats. What is read is trusted in nothing: a file that is not what would be written is left aside, and its
footprint measured anew.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from search_spaces.footprint import Footprint
from trainables.guarded_files import read_json
from trainables.measure.training_cost import CostOrigin, TrainingCost
from trainables.packed.passes import PassCost
from trainables.user_cache import cache_root, digest
from trainables.whole_files import write_whole

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
FOLDER = "costs"
MOST_FILES = 2000  # the oldest go
MOST_FILE_BYTES = 2**18
MOST_TEXT = 4096
MOST_BYTES = 2**50
MOST_TOKENS = 2**40
MOST_SECONDS = 10**6


@dataclass(frozen=True)
class KeptCost:
    """A footprint's cost, and what was known of its host when it was measured.

    `pass_bytes` is what the longest batch, of `pass_tokens`, needed beside weights and adapter, on the card where it
    needed most; both are 0 where nothing was allocated on a card.
    """

    cost: TrainingCost
    base_generated_tokens_per_second: float
    pass_bytes: int
    pass_tokens: int
    pass_cost: PassCost | None


def kept_cost(basis: Mapping[str, Any], footprint: Footprint) -> KeptCost | None:
    """Returns what an earlier study measured under the same basis, its origin in the cost; None where none has."""
    path = _path(basis, footprint)
    try:
        return _read(read_json(path, MOST_FILE_BYTES), basis, footprint)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("The kept cost %s cannot be read (%s: %s); it is measured anew.", path, type(error).__name__, error)
        return None


def keep_cost(basis: Mapping[str, Any], footprint: Footprint, kept: KeptCost, origin: CostOrigin) -> None:
    """Keeps what was measured here; where the cache cannot be written, only says so."""
    path = _path(basis, footprint)
    values = {**_key_values(basis, footprint), "measured": _measured(kept), "origin": asdict(origin)}
    try:
        text = json.dumps(values, indent=1, allow_nan=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
        _drop_oldest(path.parent)
    except (OSError, ValueError) as error:
        log.warning("The measured cost could not be kept in %s: %s", path, error)


def _path(basis: Mapping[str, Any], footprint: Footprint) -> Path:
    return cache_root() / FOLDER / f"{digest(_key_values(basis, footprint))}.json"


def _key_values(basis: Mapping[str, Any], footprint: Footprint) -> dict[str, Any]:
    """As JSON has them, so that what is read compares with what would be written."""
    values = {"schema_version": SCHEMA_VERSION, "basis": dict(basis), "footprint": footprint.to_dict()}
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def _measured(kept: KeptCost) -> dict[str, Any]:
    cost = asdict(kept.cost)
    del cost["origin"]
    return {**asdict(kept), "cost": cost}


def _drop_oldest(folder: Path) -> None:
    files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in files[: max(0, len(files) - MOST_FILES)]:
        path.unlink(missing_ok=True)


# -- reading ----------------------------------------------------------------------------------------------------------


def _read(values: Any, basis: Mapping[str, Any], footprint: Footprint) -> KeptCost:
    """Raises ValueError, KeyError, TypeError or AttributeError where the values are not what would be written."""
    expected = _key_values(basis, footprint)
    if {name: values.get(name) for name in expected} != expected:
        raise ValueError("it must repeat what its measurement depends on, and does not")
    measured, origin = values["measured"], _origin(values["origin"])
    passes = measured["pass_cost"]
    kept = KeptCost(
        _cost(measured["cost"], basis, origin),
        _checked(measured, "base_generated_tokens_per_second", _positive),
        _checked(measured, "pass_bytes", _number(0, MOST_BYTES, whole=True)),
        _checked(measured, "pass_tokens", _number(0, MOST_TOKENS, whole=True)),
        None if passes is None else PassCost(**{name: _checked(passes, name, rule) for name, rule in _PASSES.items()}),
    )
    if values != {**expected, "measured": json.loads(json.dumps(_measured(kept))), "origin": asdict(origin)}:
        raise ValueError("it must hold nothing else than what was measured")
    return kept


def _cost(values: Mapping[str, Any], basis: Mapping[str, Any], origin: CostOrigin) -> TrainingCost:
    known = {name: _checked(values, name, rule) for name, rule in _COST.items()}
    cards = [_bytes(one) for one in values["card_peak_bytes"]]
    memory = [card["memory_bytes"] for card in basis["cards"]]
    if len(cards) != len(memory) or any(one > most for one, most in zip(cards, memory, strict=True)):
        raise ValueError(f"card_peak_bytes must be of {len(memory)} cards, and within their memory; it is {cards}")
    if cards and sum(cards) != known["peak_memory_bytes"]:
        raise ValueError("peak_memory_bytes must be the sum of its cards' peaks, and is not")
    return TrainingCost(**known, card_peak_bytes=tuple(cards), origin=origin)


def _origin(values: Mapping[str, Any]) -> CostOrigin:
    origin = CostOrigin(**{one.name: _checked(values, one.name, _text) for one in fields(CostOrigin)})
    datetime.fromisoformat(origin.measured_at)
    return origin


def _checked(values: Mapping[str, Any], name: str, rule: Callable[[Any], Any]) -> Any:
    try:
        return rule(values[name])
    except ValueError as error:
        raise ValueError(f"{name} must be {error}") from None


def _number(low: float, high: float, whole: bool = False) -> Callable[[Any], Any]:
    def rule(value: Any) -> Any:
        kinds = (int,) if whole else (int, float)
        if type(value) not in kinds or not low <= value <= high:
            raise ValueError(f"a {'whole ' if whole else ''}number from {low:g} to {high:g}")
        return value

    return rule


def _optional(rule: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else rule(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable() or len(value) > MOST_TEXT:
        raise ValueError(f"printable text of at most {MOST_TEXT} characters")
    return value


_bytes = _number(1, MOST_BYTES, whole=True)
_positive = _number(1e-12, 1e12)
_COST: dict[str, Callable[[Any], Any]] = {
    "peak_memory_bytes": _bytes,
    "peak_reserved_bytes": _optional(_bytes),
    "peak_device_bytes": _optional(_bytes),
    "seconds_per_token": _number(1e-12, MOST_SECONDS),
    "seconds_per_update": _number(0, MOST_SECONDS),
    "joules_per_token": _optional(_number(0, 10**9)),
    "generated_tokens_per_second": _optional(_positive),
}
_PASSES: dict[str, Callable[[Any], Any]] = {
    "fixed_tokens": _number(0, MOST_TOKENS, whole=True),
    "run_tokens": _number(0, MOST_TOKENS, whole=True),
    "seconds_per_token": _number(1e-12, MOST_SECONDS),
}
