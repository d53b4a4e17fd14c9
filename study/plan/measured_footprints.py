"""Keeps measured footprints of a card, so that its next plan is calibrated."""

from __future__ import annotations

from collections.abc import Iterable

from search_spaces.footprint import Footprint
from study.hardware.calibration import MeasuredFootprint, add_footprints
from study.hardware.gpu_catalogue import is_of_kind
from study.hardware.targets import CPU
from study.plan.fitting import Fit
from study.plan.forecast import Forecast
from study.plan.time_model import seconds_per_epoch
from study.records.record import TrialRecord
from trainables.memory.setting import PRECISION_OF_DTYPE
from trainables.protocol import ENGINE_VERSION


def keep_footprints(records: Iterable[TrialRecord], forecast: Forecast) -> int:
    """Keeps the records' footprints beside the quantized weights, for plans for such a card; returns how many.

    Records of this engine alone: those of a study that runs now.
    """
    card = forecast.target.card
    found = measured_footprints(records, forecast)
    if found:
        add_footprints(CPU if card is None else card.key, found)
    return len(found)


def measured_footprints(records: Iterable[TrialRecord], forecast: Forecast) -> list[MeasuredFootprint]:
    """One measurement of each distinct footprint, of trials that were measured on the hardware of the forecast."""
    found = {Footprint.of(record.config): record for record in records if _comparable(record, forecast)}
    return [_measured(record, forecast) for record in found.values()]


def _comparable(record: TrialRecord, forecast: Forecast) -> bool:
    """Whether the record's peak was measured on such a card, in the type and with the offload that were predicted."""
    name, card = str(record.device.get("name") or ""), forecast.target.card
    there = name.startswith("CPU") if card is None else is_of_kind(name, card)
    compute = PRECISION_OF_DTYPE.get(str(record.device.get("compute_dtype")))
    one = forecast.fit(record.config)
    if one.cards != 1 or record.offload != one.setting.offload:  # what several cards hold says nothing of each
        return False
    return bool(record.measurements["peak_memory_bytes"]) and there and compute == one.setting.compute_precision


def _measured(record: TrialRecord, forecast: Forecast) -> MeasuredFootprint:
    one, known = forecast.fit(record.config), record.measurements
    return MeasuredFootprint(
        shape=forecast.workload.shape,
        setting=one.setting,
        load=one.load,
        engine=ENGINE_VERSION,
        peak_memory_bytes=int(known["peak_memory_bytes"]),
        peak_reserved_bytes=known["peak_reserved_bytes"],
        peak_device_bytes=known["peak_device_bytes"],
        time_ratio=_time_ratio(known["seconds_per_epoch"], one, forecast),
    )


def _time_ratio(measured_seconds: float | None, one: Fit, forecast: Forecast) -> float | None:
    """Measured over predicted, the prediction without what was learned of the card before."""
    predicted = seconds_per_epoch(one, forecast.workload, forecast.target)
    if measured_seconds is None or not predicted:
        return None
    return measured_seconds * forecast.target.calibration.time_factor / predicted
