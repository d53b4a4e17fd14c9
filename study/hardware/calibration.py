"""Fits the constants of the memory and time models to what was measured on a card.

Kept in the cache folder, `calibration/CARD.json`, beside the quantized weights. A footprint counts once, its newest
measurement; those of another training engine are left out.
"""

from __future__ import annotations

import json
import logging
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from study.records.files import write_whole
from study.records.infeasible import context_bytes
from trainables.base_model.shape import ModelShape
from trainables.guarded_files import read_json
from trainables.memory.prediction import DEFAULT_CONSTANTS, predict
from trainables.memory.setting import AdapterLoad, Device, MemoryConstants, MemorySetting
from trainables.memory.slack import slack_bytes
from trainables.memory.weights import ModelPart, base_components
from trainables.user_cache import cache_root

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
MOST_FOOTPRINTS = 500
LOCK_SECONDS = 10.0
FACTOR_RANGE = (0.5, 2.0)
FIT_ROUNDS = 5  # the peak's moment, and the weights of outliers, depend on the constants: fitted again
OUTLIER_BYTES = 32 * 2**20  # residuals beyond count ever less (Huber's weights)
SLACK_QUANTILE = 0.95  # of measured fragments: what is admitted must not run out
MOST_SLACK_FACTOR = 1.5
SPREAD = 1.2  # the largest activations over the smallest from which a factor can be told from an offset


@dataclass(frozen=True)
class MeasuredFootprint:
    """One configuration trained alone: what the models take, and what was measured; None where it was not.

    `engine` numbers the training engine (`trainables.protocol.ENGINE_VERSION`). `time_ratio` is measured over predicted
    seconds of a pass.
    """

    shape: ModelShape
    setting: MemorySetting
    load: AdapterLoad
    engine: int
    peak_memory_bytes: int
    peak_reserved_bytes: int | None = None
    peak_device_bytes: int | None = None
    time_ratio: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MeasuredFootprint:
        """Reads `to_dict`'s form. Raises KeyError, TypeError."""
        load = values["load"]
        parts = {
            "shape": ModelShape.from_json(values["shape"]),
            "setting": MemorySetting.from_json(values["setting"]),
            "load": AdapterLoad(**{**load, "target_modules": tuple(load["target_modules"])}),
        }
        return cls(**{**values, **parts})


@dataclass(frozen=True)
class Calibration:
    """The constants of a card; `footprints` is how many measurements they follow from (0: the defaults)."""

    constants: MemoryConstants
    time_factor: float = 1.0
    footprints: int = 0


def calibration_for(card: str, device: Device, engine: int) -> Calibration:
    """The card's constants, corrected by what was measured on it with this engine; the defaults where nothing was."""
    known = [one for one in read_footprints(card) if one.engine == engine and one.setting.device == device]
    return fit(known, DEFAULT_CONSTANTS[device])


def read_footprints(card: str) -> tuple[MeasuredFootprint, ...]:
    """What was measured on a card, the oldest first; nothing where the file is missing, foreign or broken."""
    path = calibration_path(card)
    try:
        values = read_json(path)
        if values["schema_version"] != SCHEMA_VERSION:
            return ()
        return tuple(MeasuredFootprint.from_dict(one) for one in values["footprints"])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("The calibration %s cannot be read (%s); it is made anew.", path, error)
        return ()


def add_footprints(card: str, measured: Sequence[MeasuredFootprint]) -> None:
    """Keeps measurements of a card, each footprint's newest; where the cache cannot be written, only says so."""
    path = calibration_path(card)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock"), timeout=LOCK_SECONDS):
            newest = {_identity(one): one for one in (*read_footprints(card), *measured)}
            kept = list(newest.values())[-MOST_FOOTPRINTS:]
            values = {"schema_version": SCHEMA_VERSION, "card": card, "footprints": [one.to_dict() for one in kept]}
            write_whole(path, json.dumps(values, indent=1, allow_nan=False))
    except (OSError, Timeout) as error:
        log.warning("The measurements could not be kept in %s: %s", path, error)


def calibration_path(card: str) -> Path:
    """Where a card's measurements are; `card` is its name, or `cpu`."""
    name = re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-") or "unknown"
    return cache_root() / "calibration" / f"{name}.json"


def fit(measured: Sequence[MeasuredFootprint], default: MemoryConstants) -> Calibration:
    """Constants that bring predicted peaks nearest to measured ones.

    peak = known + offset + factor x activations, by least squares with Huber's weights (outliers count less), relative
    to nothing: bytes. Where all activations are alike only the offset is fitted. The context is the median of what was
    measured; the reserve for fragments follows a high quantile.
    """
    if not measured:
        return Calibration(default)
    constants = default
    weights = [1.0] * len(measured)
    for _ in range(FIT_ROUNDS):
        points = [_point(one, constants) for one in measured]
        offset, factor = _line(points, weights)
        residuals = [y - offset - factor * x for x, y in points]
        weights = [min(1.0, OUTLIER_BYTES / max(1.0, abs(residual))) for residual in residuals]
        constants = MemoryConstants(
            context_bytes=_median(measured, _context, default.context_bytes),
            offset_bytes=max(0, round(offset)),
            activation_factor=factor,
            slack_factor=_slack_factor(measured, constants),
            calibrated=True,
        )
    return Calibration(constants, _median(measured, lambda one: one.time_ratio, 1.0), len(measured))


def _point(one: MeasuredFootprint, constants: MemoryConstants) -> tuple[float, float]:
    """(activations at factor 1, measured peak less all that the constants do not touch), at the moment of the peak."""
    prediction = predict(one.shape, one.setting, one.load, constants)
    activations = prediction.components["activations"]
    known = prediction.peak_memory_bytes - constants.offset_bytes - activations
    return activations / constants.activation_factor, float(one.peak_memory_bytes - known)


def _line(points: Sequence[tuple[float, float]], weights: Sequence[float]) -> tuple[float, float]:
    """Offset and factor of the weighted least squares line; the factor is 1 where the points do not tell it."""
    total = sum(weights)
    mean_x = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / total
    mean_y = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / total
    spread = sum(w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, points, strict=True))
    lowest, highest = min(x for x, _ in points), max(x for x, _ in points)
    factor = 1.0
    if highest > SPREAD * lowest and highest - lowest > OUTLIER_BYTES:  # less drowns in what else moves a peak
        along = sum(w * (x - mean_x) * (y - mean_y) for w, (x, y) in zip(weights, points, strict=True))
        factor = min(max(along / spread, FACTOR_RANGE[0]), FACTOR_RANGE[1])
    return mean_y - factor * mean_x, factor


def _context(one: MeasuredFootprint) -> float | None:
    return context_bytes(one.peak_reserved_bytes, one.peak_device_bytes)


def _slack_factor(measured: Sequence[MeasuredFootprint], constants: MemoryConstants) -> float:
    """What multiplies the reserve for the allocator's fragments: a high quantile of measured over assumed ones.

    Never under 1: a card with room to spare shows fragments only by chance. Nor over `MOST_SLACK_FACTOR`: an
    allocator with room keeps free blocks that it gives back where memory is short.
    """
    ratios = sorted(ratio for one in measured if (ratio := _slack_ratio(one, constants)) is not None)
    if not ratios:
        return 1.0
    high = ratios[min(len(ratios) - 1, int(SLACK_QUANTILE * len(ratios)))]
    return min(max(high, 1.0), MOST_SLACK_FACTOR)


def _slack_ratio(one: MeasuredFootprint, constants: MemoryConstants) -> float | None:
    """Measured fragments over those that are assumed at factor 1; None where they were not measured."""
    if one.peak_reserved_bytes is None:
        return None
    weights = sum(base_components(one.shape, one.setting, ModelPart(one.shape.layers)).values())
    assumed = slack_bytes(one.setting, one.peak_memory_bytes - weights, replace(constants, slack_factor=1.0))
    return (one.peak_reserved_bytes - one.peak_memory_bytes) / assumed if assumed else None


def _median(
    measured: Sequence[MeasuredFootprint], of: Callable[[MeasuredFootprint], float | None], default: float
) -> Any:
    values = [value for value in map(of, measured) if value is not None]
    return type(default)(statistics.median(values)) if values else default


def _identity(one: MeasuredFootprint) -> tuple[Any, ...]:
    return one.shape, one.setting, one.load, one.engine
