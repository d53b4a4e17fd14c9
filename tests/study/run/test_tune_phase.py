"""What one phase asks of Ray Tune, and what a trial is given; tests/test_whole_study.py has real runs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune

from study.config.study_config import StudyConfig
from study.errors import StoreError
from study.plan.phases import StudyPhase
from study.plan.shares import Phase
from study.run.study_run import StudyRun
from study.run.tune_phase import StopWhen, run_phase
from study.run.tune_searcher import TuneSearcher
from study.search.study_search import Proposal
from tests.support.made_up_studies import make_config
from trainables.actors.host_keeper import KEEPER_NAME
from trainables.memory.offload import Offload

PHASE = StudyPhase(Phase("nf4", trials=2, places=2, resources={"GPU": 0.25}, cards=1, per_device=4))


@dataclass
class StandIn:
    """The study's search and store, and the keeping of its records."""

    left: list[Proposal] = field(default_factory=list)
    begun: list[Proposal] = field(default_factory=list)
    error: StoreError | None = None
    forecast: Any = None
    append: Any = None

    def unfinished(self) -> list[Proposal]:
        return self.begun

    def ask(self, precision: str) -> Proposal | None:
        return self.left.pop(0) if self.left else None

    def records(self) -> tuple[()]:
        return ()

    def raise_any(self) -> None:
        if self.error:
            raise self.error


def proposal(trial_id: str, precision: str = "nf4") -> Proposal:
    return Proposal(trial_id, make_config(precision))


@pytest.fixture
def tuned(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What Tune was asked for, in place of a run."""
    asked: list[Any] = []

    class Tuner:
        def __init__(self, trainable: type, **configs: Any) -> None:
            asked.append(SimpleNamespace(trainable=trainable, **configs))

        def fit(self) -> None:
            asked[-1].pending = os.environ["TUNE_MAX_PENDING_TRIALS_PG"]

    monkeypatch.setenv("TUNE_MAX_PENDING_TRIALS_PG", "1")
    monkeypatch.setattr(tune, "Tuner", Tuner)
    return asked


def run(config: StudyConfig, directory: Path, parts: StandIn, phase: StudyPhase = PHASE) -> None:
    study = StudyRun(config, directory, parts, parts)  # type: ignore[arg-type]
    run_phase(study, phase, lambda trial_id, config: None, parts)  # type: ignore[arg-type]


def test_a_phase_runs_in_a_folder_of_its_own_and_starts_all_its_actors_at_once(
    config: StudyConfig, tmp_path: Path, tuned: list[Any]
) -> None:
    run(config, tmp_path, StandIn())
    (asked,) = tuned
    assert asked.trainable.__name__ == "LoraTrial"
    assert asked.run_config.name.startswith("nf4-")
    assert asked.run_config.storage_path == f"{tmp_path}/tune"
    assert asked.run_config.checkpoint_config.checkpoint_at_end is False
    assert (asked.tune_config.num_samples, asked.tune_config.reuse_actors, asked.pending) == (-1, True, "2")


def test_a_trial_is_told_its_keeper_its_share_and_its_checkpoint(
    config: StudyConfig, tmp_path: Path, tuned: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StudyRun, "checkpoint", lambda self, trial_id: "its folder" if trial_id == "t0" else None)
    run(config, tmp_path, StandIn(left=[proposal("t1")], begun=[proposal("t0"), proposal("other", "fp32")]))
    searcher: TuneSearcher = tuned[0].tune_config.search_alg
    shared = {"config": make_config("nf4").to_dict(), "keeper": KEEPER_NAME, "resources": {"GPU": 0.25}}
    assert searcher.suggest("a") == {"trial_id": "t0", **shared, "resume_from": "its folder"}
    assert searcher.suggest("b") == {"trial_id": "t1", **shared}


def test_a_trial_is_told_what_waits_in_host_memory(config: StudyConfig, tmp_path: Path, tuned: list[Any]) -> None:
    offload = Offload(layers=3, layer_inputs=True)
    phase = replace(PHASE, phase=replace(PHASE.phase, offload=offload))
    run(config, tmp_path, StandIn(left=[proposal("t1")]), phase)
    told = tuned[0].tune_config.search_alg.suggest("a")["offload"]
    assert told == {"layers": 3, "embedding": False, "optimizer_state": False, "layer_inputs": True}
    assert Offload(**told) == offload


def test_what_cannot_be_kept_stops_the_phase_and_is_raised(
    config: StudyConfig, tmp_path: Path, tuned: list[Any]
) -> None:
    parts = StandIn(error=StoreError("It must be writable", "disk full", "Free some."))
    with pytest.raises(StoreError, match="disk full"):
        run(config, tmp_path, parts)
    assert tuned[0].run_config.stop.stop_all()


def test_trials_are_stopped_all_or_none() -> None:
    held = [False]
    stopper = StopWhen(lambda: held[0])
    assert not stopper("t0", {})
    assert not stopper.stop_all()
    held[0] = True
    assert stopper.stop_all()
    assert not stopper("t0", {})
