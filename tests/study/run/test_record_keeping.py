"""Records are kept with their predictions; what cannot be kept is noted for the driver."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from study.cluster.nodes import with_promised
from study.config.study_config import load_study
from study.errors import StoreError
from study.plan.forecast import Forecast, forecast_on
from study.plan.preflight import Preflight
from study.plan.workload import Workload
from study.records.record import TrialRecord
from study.run.record_keeping import Keeping
from tests.support.made_up_studies import write_study_file
from tests.support.plan_cases import LLAMA_3_8B, PUBMEDQA, cards, config, workload
from tests.test_cluster_files import cluster
from trainables.protocol import ADAPTER_UNWRITTEN


class StandIn:
    """Both store and table: keeps records, or fails."""

    def __init__(self, error: StoreError | None = None) -> None:
        self.records: list[TrialRecord] = []
        self.shown: list[TrialRecord] = []
        self._error = error

    def append(self, record: TrialRecord) -> bool:
        if self._error:
            raise self._error
        self.records.append(record)
        return True

    def note_record(self, record: TrialRecord) -> None:
        self.shown.append(record)


def keeping(place: Any, forecast: Forecast | None) -> Keeping:
    return Keeping(place, place, forecast)


def test_a_record_is_kept_with_what_was_predicted() -> None:
    place, forecast = StandIn(), Forecast(workload(), cards())
    record = TrialRecord("s", "t0", "failed", config())
    keeping(place, forecast).append(record)
    (kept,) = place.records
    assert kept.predictions == forecast.predictions(config())
    assert dataclasses.replace(kept, predictions={}) == record
    assert place.shown == place.records


def test_without_a_forecast_there_is_nothing_to_add_and_nothing_to_learn() -> None:
    place = StandIn()
    one = keeping(place, None)
    one.append(TrialRecord("s", "t0", "complete", config()))
    one.keep_footprints()
    assert place.records[0].predictions == {}
    one.raise_any()


def test_what_ran_out_of_memory_is_noted_for_its_kin() -> None:
    forecast = Forecast(workload(), cards())
    facts = {"moment": "training", "requested_bytes": 2, "available_bytes": 1, "source": "observed"}
    keeping(StandIn(), forecast).append(TrialRecord("s", "t0", "infeasible", config(), infeasible=facts))
    kin, other = forecast.ran_out(config(learning_rate=1e-5)), forecast.ran_out(config(rank=16))
    assert kin is not None
    assert (kin.trial_id, other) == ("t0", None)


def test_a_trained_trial_whose_adapter_finds_no_room_has_not_ended(tmp_path: Path) -> None:
    """The study stops, and no record says that the trial failed; `resume` continues it."""
    place = StandIn()
    one = Keeping(StoreIn(place, tmp_path), place)  # type: ignore[arg-type]
    reason = f"HandoverError: {ADAPTER_UNWRITTEN}: OSError: [Errno 28] No space left on device"
    one.append(TrialRecord("s", "t7", "failed", config(), reason=reason))
    assert place.records == place.shown == []
    with pytest.raises(StoreError) as caught:
        one.raise_any()
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'adapters/t7'} must be writable; OSError: [Errno 28] No space left on device.")
    assert said.endswith(f"then continue: python -m study resume {tmp_path}")


class StoreIn:
    """A store of that directory."""

    def __init__(self, place: StandIn, directory: Path) -> None:
        self.append, self.directory = place.append, directory


def test_a_record_that_cannot_be_kept_is_for_the_driver_to_raise() -> None:
    place = StandIn(StoreError("results.jsonl must be writable", "the disk is full", "Free some space."))
    one = keeping(place, None)
    one.append(TrialRecord("s", "t0", "failed", config()))
    assert place.shown == []
    with pytest.raises(StoreError, match="the disk is full"):
        one.raise_any()


def test_a_forecast_on_a_cluster_needs_model_and_cards(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path))
    study = load_study(write_study_file(tmp_path, hardware={"gpu": "auto"}))
    found = Preflight(8_030_261_248, "llama", PUBMEDQA, LLAMA_3_8B)
    nodes = [{"CPU": 4.0}, {"CPU": 4.0, "GPU": 2.0, "accelerator_type:T4": 1.0}]
    forecast = forecast_on(study, found, nodes, use_gpu=True, local=False)
    assert forecast is not None
    assert forecast.workload == Workload.of(LLAMA_3_8B, study.trial.training, PUBMEDQA)
    assert (forecast.target.card.key if forecast.target.card else None, forecast.target.count) == ("t4", 2)
    assert forecast_on(study, None, nodes, use_gpu=True, local=False) is None
    assert forecast_on(study, found, nodes[:1], use_gpu=True, local=False) is None
    assert forecast_on(study, dataclasses.replace(found, shape=None), nodes, use_gpu=True, local=False) is None


def test_on_a_cluster_whose_workers_are_still_to_start_they_are_what_a_study_is_forecast_on(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ray up` starts the head alone: NF4 fits the T4s that come, and nothing is refused for want of cards."""
    monkeypatch.setenv("LORA_FRONTIER_CACHE", str(tmp_path))
    study = load_study(write_study_file(tmp_path, hardware={"gpu": "t4", "base_in_host_memory": "never"}))
    found = Preflight(8_030_261_248, "llama", PUBMEDQA, LLAMA_3_8B)
    nodes = with_promised([{"CPU": 0.0, "memory": 1e9}], cluster("cluster.yaml"))
    forecast = forecast_on(study, found, nodes, use_gpu=True, local=False)
    assert forecast is not None
    assert (forecast.target.count, forecast.target.per_node) == (4, 1)
    assert forecast.fit(config(precision="nf4")).fits
    assert not forecast.fit(config(precision="fp16")).fits  # its base takes two cards of one machine
