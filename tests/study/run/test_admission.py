"""What is predicted not to fit is recorded, told to the search, and never started."""

from __future__ import annotations

import pickle
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from search_spaces.parameters import parse_space
from search_spaces.trial_config import TrialConfig
from study.config.study_config import SearchSettings
from study.plan.forecast import Forecast
from study.records.objectives import Objective
from study.records.record import TrialRecord
from study.run.admission import Admission, note_verdicts, refuse_what_never_fits, verdict_on
from study.search.search_task import SearchTask
from study.search.study_search import Proposal, StudySearch
from tests.support.plan_cases import GIB, cards, workload
from trainables.memory.offload import Offload
from trainables.protocol import ENGINE_VERSION
from trainables.settings import BaseModelSettings, DatasetSettings, TrialSettings
from trainables.verdicts import Conditions

OBJECTIVES = (Objective("perplexity", "minimize", 12.0), Objective("peak_memory_bytes", "minimize", 2e10))
SPACE = {
    "precision": {"choice": ["fp16", "nf4"]}, "rank": {"choice": [8, 16]}, "target_modules": "q_v",
    "lora_alpha": {"rank_times": 2}, "lora_dropout": 0.05, "learning_rate": 2e-4,
}  # fmt: skip


FACTS = {"moment": "measuring", "requested_bytes": 9, "available_bytes": 8, "source": "observed"}


def ran_out(trial_id: str, config: TrialConfig, **facts: Any) -> TrialRecord:
    """The record of a trial that ran out of memory alone."""
    return TrialRecord("s", trial_id, "infeasible", config, infeasible={**FACTS, **facts})


def search_in(folder: Path, algorithm: str = "grid", **changes: Any) -> StudySearch:
    space = parse_space({**SPACE, **changes})
    settings = SearchSettings(algorithm, trials=6, seed=0)  # type: ignore[arg-type]
    return StudySearch(folder / "optuna.db", SearchTask("study", space, settings, (0,), OBJECTIVES))


@pytest.fixture
def forecast() -> Forecast:
    """Four machines of one T4 each."""
    return Forecast(replace(workload(), base_in_host_memory="never"), cards(count=4, per_node=1))


def test_of_a_grid_what_never_fits_ends_before_anything_starts(tmp_path: Path, forecast: Forecast) -> None:
    search, kept = search_in(tmp_path), list[TrialRecord]()
    refuse_what_never_fits("s", search, ("fp16", "nf4"), forecast, kept.append)
    assert [(one.trial_id, one.status, one.config.precision) for one in kept] == [
        ("t000", "infeasible", "fp16"), ("t001", "infeasible", "fp16"),
    ]  # fmt: skip
    assert search.ask("fp16") is None
    assert not search.unfinished()
    record = TrialRecord.from_json(kept[0].to_json())
    assert record.reason == (
        "does not fit: it needs 15.94 GiB, and one NVIDIA T4 can hold 14.56 GiB; with moments and layer "
        "inputs in host memory it needs 15.88 GiB, as predicted; what would make it fit: "
        "hardware.base_in_host_memory: auto (with 7 of 32 layers in host memory, 2.84 GiB); or precision: nf4; "
        "or 2 such cards in one node"
    )
    facts = record.infeasible
    assert facts is not None
    assert sum(facts["components"].values()) == facts["requested_bytes"] > facts["available_bytes"]
    assert record.predictions["peak_memory_bytes"] == pytest.approx(15.3 * GIB, rel=1e-3)
    nf4 = search.ask("nf4")
    assert nf4 is not None
    assert nf4.trial_id == "t002"


def test_a_search_is_asked_until_something_fits(tmp_path: Path, forecast: Forecast) -> None:
    search = search_in(tmp_path, "random", rank={"choice": [8, 1024]}, target_modules="all_linear", precision="nf4",
                       learning_rate={"log_float": [1e-5, 1e-3]})  # fmt: skip
    kept: list[TrialRecord] = []
    refuse_what_never_fits("s", search, (), forecast, kept.append)
    assert not kept  # a search's configurations are not known before they are asked for
    admission = Admission("s", search, forecast, kept.append)
    started: list[Proposal] = []
    while (proposal := admission.ask("nf4")) is not None:
        started.append(proposal)
        admission.tell(proposal.trial_id, "complete", (1.0, 2.0))
    assert {one.config.rank for one in started} == {8}
    assert {one.config.rank for one in kept} == {1024}
    assert len(started) + len(kept) == 6
    assert not search.unfinished()


def test_a_trial_that_was_asked_for_before_a_kill_is_refused_as_well(tmp_path: Path, forecast: Forecast) -> None:
    search, kept = search_in(tmp_path), list[TrialRecord]()
    asked = [search.ask("fp16"), search.ask("nf4")]  # and the driver died between asking and recording
    refuse_what_never_fits("s", search, (), forecast, kept.append)
    assert [one.trial_id for one in kept] == ["t000"]
    assert search.unfinished() == [asked[1]]


def test_what_ran_out_of_memory_alone_is_not_tried_again_by_its_kin(tmp_path: Path, forecast: Forecast) -> None:
    search = search_in(tmp_path, learning_rate={"choice": [1e-4, 2e-4]})
    kept: list[TrialRecord] = []
    admission = Admission("s", search, forecast, kept.append)
    first = admission.ask("nf4")
    assert first is not None
    forecast.note(ran_out(first.trial_id, first.config))
    second = admission.ask("nf4")
    assert second is not None
    assert second.config.rank != first.config.rank
    (kin,) = kept
    assert (kin.config.rank, kin.status) == (first.config.rank, "infeasible")
    assert kin.infeasible == {**FACTS, "ran_out": first.trial_id}
    assert kin.reason == f"{first.trial_id} of the same footprint ran out of memory alone, so this one was not started"
    forecast.note(kin)  # as it is kept: who did run out is still named
    verdict = verdict_on(first.config, forecast)
    assert verdict is not None
    assert f"{first.trial_id} of the same footprint" in verdict.reason_of_kin()


@pytest.mark.parametrize(("shared", "admitted"), [(None, False), (0, False), (GIB, False), (5 * GIB, True)])
def test_a_verdict_found_while_another_process_held_the_card_is_of_that_trial_alone(
    tmp_path: Path, forecast: Forecast, shared: int | None, admitted: bool
) -> None:
    search = search_in(tmp_path)
    proposal = search.ask("nf4")
    assert proposal is not None
    forecast.note(ran_out("t9", proposal.config, shared_bytes=shared))
    assert bool(Admission("s", search, forecast, lambda record: None).admitted([proposal])) == admitted


@pytest.mark.parametrize(
    ("device", "changes", "kept"),
    [
        ("Tesla T4", {}, True),
        ("NVIDIA H100", {}, False),
        ("CPU (x86_64)", {}, False),
        ("", {}, False),
        ("Tesla T4", {"engine": ENGINE_VERSION - 1}, False),
        ("Tesla T4", {"engine": str(ENGINE_VERSION)}, False),
        ("Tesla T4", {"memory_limit_bytes": 8 * GIB}, False),
        ("Tesla T4", {"cards": 2}, False),
        ("Tesla T4", {"micro_batch_size": 64}, False),
        ("Tesla T4", {"gradient_checkpointing": False}, False),
        ("Tesla T4", {"max_tokens": 4096}, False),
        ("Tesla T4", {"data": "f2"}, False),  # changed data were accepted since, with other rows under the same cut
        ("Tesla T4", {"optimizer": "adamw_8bit"}, False),
        ("Tesla T4", {"offload": Offload(layers=32).to_dict()}, False),
        ("Tesla T4", {"else": 1}, False),
        ("Tesla T4", None, False),  # of a version that did not say
    ],
)
def test_a_resumed_study_keeps_a_verdict_of_the_same_card_limit_engine_batch_and_data(
    tmp_path: Path, forecast: Forecast, device: str, changes: dict[str, Any] | None, kept: bool
) -> None:
    """The trial's own record stands as it is; it is what its kin are told that depends on it."""
    search = search_in(tmp_path, learning_rate={"choice": [1e-4, 2e-4]})
    first, kin = (search.ask("nf4") for _ in range(2))
    assert first is not None
    assert kin is not None
    settings = TrialSettings(BaseModelSettings("m"), DatasetSettings("mine"))
    conditions = None if changes is None else {**Conditions.of(settings, 1, "f1").to_dict(), **changes}
    record = replace(ran_out(first.trial_id, first.config, conditions=conditions), device={"name": device})
    written = TrialRecord.from_json(record.to_json())
    note_verdicts([written], forecast, settings, "f1")
    admission = Admission("s", search, forecast, lambda record: None)
    assert admission.admitted([replace(kin, config=first.config)]) == (
        [] if kept else [replace(kin, config=first.config)]
    )


def test_tune_may_pickle_an_admission_whatever_it_records_to(tmp_path: Path, forecast: Forecast) -> None:
    lock = threading.Lock()
    pickle.dumps(Admission("s", search_in(tmp_path), forecast, lambda record: lock))


def test_a_phase_asks_for_its_own_configurations_alone(tmp_path: Path, forecast: Forecast) -> None:
    search = search_in(tmp_path)
    admission = Admission("s", search, forecast, lambda record: None, lambda config: config.rank == 16)
    proposal = admission.ask("nf4")
    assert proposal is not None
    assert proposal.config.rank == 16
    assert admission.ask("nf4") is None
    assert admission.admitted([proposal]) == [proposal]
    left = search.ask("nf4")
    assert left is not None
    assert left.config.rank == 8
    assert admission.admitted([left]) == []


def test_a_searchs_phase_of_one_card_refuses_what_takes_two(tmp_path: Path) -> None:
    """Its hosts hold one card each; a grid would run the same configuration in a phase of two."""
    several = Forecast(replace(workload(), base_in_host_memory="never"), cards(count=4))
    search, kept = search_in(tmp_path, "random", precision="fp16"), list[TrialRecord]()
    proposal = search.ask("fp16")
    assert proposal is not None
    assert several.fit(proposal.config).cards == 2
    assert Admission("s", search, several, kept.append).admitted([proposal]) == [proposal]
    assert Admission("s", search, several, kept.append, cards=2).admitted([proposal]) == [proposal]
    assert Admission("s", search, several, kept.append, cards=1).admitted([proposal]) == []
    (record,) = kept
    assert record.reason is not None
    assert (
        "it needs 15.88 GiB, as predicted; what would make it fit: hardware.base_in_host_memory: auto (with 7 of 32 "
        "layers in host memory, 2.84 GiB); or precision: nf4; or 2 such cards"
    ) in record.reason
    assert (record.infeasible or {})["requested_bytes"] == several.fit(proposal.config, 1).device_bytes
