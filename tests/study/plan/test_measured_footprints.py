"""A study's measured footprints correct the next plan for such a card."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from search_spaces.trial_config import TrialConfig
from study.hardware.calibration import read_footprints
from study.hardware.targets import cpu_target, gpu_target
from study.plan.forecast import Forecast
from study.plan.measured_footprints import keep_footprints, measured_footprints
from study.plan.time_model import seconds_per_epoch
from study.records.record import TrialRecord
from tests.support.plan_cases import GIB, cards, config, workload
from trainables.memory.prediction import predict
from trainables.protocol import ENGINE_VERSION

MIB = 2**20
TRUE_OFFSET = 300 * MIB  # more than the default, as of a card whose libraries take more


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path))


@pytest.fixture
def forecast() -> Forecast:
    return Forecast(workload(), cards("h100", count=1))


def record(forecast: Forecast, one: TrialConfig, trial_id: str = "t0", **changes: Any) -> TrialRecord:
    """What a card of that offset measures of the configuration, half as fast as predicted."""
    fit = forecast.fit(one)
    constants = dataclasses.replace(fit.largest.constants, offset_bytes=TRUE_OFFSET)
    peak = predict(forecast.workload.shape, fit.setting, fit.load, constants).peak_memory_bytes
    seconds = seconds_per_epoch(fit, forecast.workload, forecast.target)
    measured = {
        "peak_memory_bytes": peak, "peak_reserved_bytes": round(1.05 * peak),
        "peak_device_bytes": round(1.05 * peak) + 1200 * MIB, "seconds_per_epoch": 2 * seconds if seconds else None,
    }  # fmt: skip
    values = {"device": {"name": "NVIDIA H100 80GB HBM3", "compute_dtype": "bfloat16"}, "measurements": measured}
    return TrialRecord("s", trial_id, "complete", one, **{**values, **changes})


def test_the_next_plan_for_such_a_card_is_calibrated(forecast: Forecast) -> None:
    configs = [config(rank=rank, seed=seed) for rank in (8, 64) for seed in (0, 1)]
    records = [record(forecast, one, f"t{place}") for place, one in enumerate(configs)]
    assert keep_footprints(records, forecast) == 2  # a footprint counts once
    card = forecast.target.card
    assert card is not None
    target = gpu_target(card, 1, ENGINE_VERSION)
    known = target.calibration
    assert known.constants.calibrated
    assert (known.footprints, known.time_factor) == (2, pytest.approx(2.0))
    assert known.constants.context_bytes == pytest.approx(1200 * MIB, abs=2)
    again = Forecast(workload(), target)
    for one in records:
        measured = one.measurements["peak_memory_bytes"]
        assert again.predictions(one.config)["peak_memory_bytes"] == pytest.approx(measured, rel=1e-4)
    assert keep_footprints(records, again) == 2
    assert gpu_target(card, 1, ENGINE_VERSION).calibration.time_factor == pytest.approx(2.0)  # not once more


@pytest.mark.parametrize(
    "changes",
    [
        {"device": {"name": "Tesla T4", "compute_dtype": "bfloat16"}},
        {"device": {"name": "NVIDIA H100 PCIe", "compute_dtype": "float16"}},
        {"device": {"name": "NVIDIA H100 PCIe", "compute_dtype": "bfloat16", "offload": {"layers": 1}}},
        {"device": {}},
        {"measurements": {}},
    ],
)
def test_other_cards_types_and_what_was_not_measured_teach_nothing(forecast: Forecast, changes: Any) -> None:
    assert measured_footprints([record(forecast, config(), **changes)], forecast) == []
    assert keep_footprints([record(forecast, config(), **changes)], forecast) == 0
    assert read_footprints("h100") == ()


def test_a_processor_learns_memory_alone() -> None:
    target = cpu_target(64 * GIB, ENGINE_VERSION, computes_bf16=False)
    forecast = Forecast(workload(), target)
    device = {"name": "CPU (x86_64)", "compute_dtype": "float32"}
    one = record(forecast, config("fp32"), device=device)
    assert [each.time_ratio for each in measured_footprints([one], forecast)] == [None]
    keep_footprints([one], forecast)
    assert cpu_target(64 * GIB, ENGINE_VERSION, computes_bf16=False).calibration.footprints == 1
