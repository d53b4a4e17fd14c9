"""The search in Tune's hands: who is out, who comes next, and that every end is told."""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune
from ray.tune.search import Searcher

from search_spaces.parameters import SearchSpace, parse_space
from study.config.search_sections import SearchSettings
from study.records.objectives import Objective
from study.run.tune_searcher import TuneSearcher, identity
from study.search.search_task import SearchTask
from study.search.study_search import Proposal, StudySearch

OBJECTIVES = (Objective("perplexity", "minimize", 12.0), Objective("peak_memory_bytes", "minimize", 1e9))


def space(ranks: list[int]) -> SearchSpace:
    return parse_space(
        {
            "precision": {"choice": ["bf16", "nf4"]},
            "rank": {"choice": ranks},
            "target_modules": "q_v",
            "lora_alpha": {"rank_times": 2},
            "lora_dropout": 0.0,
            "learning_rate": 1e-4,
        }
    )


@dataclass
class StandInSearch:
    """A search without a database: the trials of a grid, and what was told of them."""

    left: list[Proposal] = field(default_factory=list)
    told: list[tuple[Any, ...]] = field(default_factory=list)

    def ask(self, precision: str) -> Proposal | None:
        assert precision == "bf16"
        return self.left.pop(0) if self.left else None

    def tell(self, *values: Any) -> None:
        self.told.append(values)


def proposals(count: int) -> list[Proposal]:
    configs = space(list(range(1, count + 1))).with_precision("bf16").grid([0])
    return [Proposal(f"t{number:03}", config) for number, config in enumerate(configs)]


def searcher(search: Any, places: int = 2, **options: Any) -> TuneSearcher:
    return TuneSearcher(search, precision="bf16", objectives=OBJECTIVES, places=places, **options)


def names(suggestions: list[Any]) -> list[Any]:
    return [one["trial_id"] if isinstance(one, dict) else one for one in suggestions]


def last_result(status: str = "complete", reason: str | None = None, **measured: Any) -> dict[str, Any]:
    outcome = json.dumps({"status": status, "reason": reason, "measurements": measured})
    return {"done": True, "step": 9, "record_status": status, "reason": reason, "outcome": outcome}


def test_as_many_are_out_as_there_are_places() -> None:
    tuned = searcher(StandInSearch(proposals(5)), places=2)
    assert names([tuned.suggest(name) for name in "abc"]) == ["t000", "t001", None]
    tuned.on_trial_complete("a", last_result())
    assert names([tuned.suggest(name) for name in "cd"]) == ["t002", None]
    tuned.on_trial_complete("c", error=True)
    tuned.on_trial_complete("b")
    assert names([tuned.suggest(name) for name in "efg"]) == ["t003", "t004", None]
    tuned.on_trial_complete("e", last_result())
    assert tuned.suggest("g") == Searcher.FINISHED  # also while one is out
    tuned.on_trial_complete("f", last_result())
    assert tuned.suggest("g") == Searcher.FINISHED


def test_what_was_begun_goes_out_first_and_takes_its_places() -> None:
    first, left = proposals(4)[2:], proposals(4)[:2]
    tuned = searcher(StandInSearch(left), places=3, first=first)
    assert names([tuned.suggest(name) for name in "abcd"]) == ["t002", "t003", "t000", None]


def test_a_suggestion_is_a_trial_s_config() -> None:
    one, other = proposals(2)
    tuned = searcher(
        StandInSearch([one, other]), trial_config=lambda each: {**identity(each), "keeper": f"of {each.trial_id}"}
    )
    assert tuned.suggest("a") == {"trial_id": "t000", "config": one.config.to_dict(), "keeper": "of t000"}
    assert tuned.suggest("b") == {"trial_id": "t001", "config": other.config.to_dict(), "keeper": "of t001"}


MEASURED = {"perplexity": 7.5, "peak_memory_bytes": 2**30}
ENDS: list[tuple[dict[str, Any], tuple[Any, ...]]] = [
    ({"result": last_result(**MEASURED)}, ("complete", (7.5, 2.0**30), None)),
    ({"result": last_result(perplexity=7.5)}, ("complete", None, None)),
    ({"result": last_result(perplexity=float("nan"), peak_memory_bytes=1)}, ("complete", None, None)),
    ({"result": last_result("diverged", "loss is nan")}, ("diverged", None, "loss is nan")),
    ({"result": last_result("infeasible", "too large")}, ("infeasible", None, "too large")),
    ({"result": {"step": 5, "perplexity": 8.0}}, ("failed", None, "the trial ended without an outcome")),
    ({"result": None}, ("failed", None, "the trial ended without an outcome")),
    ({"error": True}, ("failed", None, "the trial's process failed for good")),
    ({"result": last_result(**MEASURED), "error": True}, ("failed", None, "the trial's process failed for good")),
]


@pytest.mark.parametrize(("end", "told"), ENDS)
def test_every_end_is_told_once(end: dict[str, Any], told: tuple[Any, ...]) -> None:
    search = StandInSearch(proposals(1))
    tuned = searcher(search)
    tuned.suggest("a")
    tuned.on_trial_complete("a", **end)
    tuned.on_trial_complete("a", **end)
    tuned.on_trial_complete("unknown", **end)
    assert [one[:4] for one in search.told] == [("t000", *told)]


def test_a_stopped_trial_is_told_with_its_fidelity() -> None:
    search, asked = StandInSearch(proposals(1)), []
    tuned = searcher(search, stop_reason=lambda name: asked.append(name) or "dominated at step 5 of 9")
    tuned.suggest("a")
    outcome = {"status": "stopped", "reason": None, "measurements": {**MEASURED, "train_steps": 5}}
    tuned.on_trial_complete("a", {"step": 5, "perplexity": 7.5, "so_far": json.dumps(outcome)})
    assert asked == ["t000"]
    assert search.told == [("t000", "stopped", (7.5, 2.0**30), "dominated at step 5 of 9", 5)]


def test_a_saved_searcher_knows_who_is_out(tmp_path: Path) -> None:
    search = StandInSearch(proposals(3)[1:])
    tuned = searcher(search, first=proposals(1))
    tuned.suggest("a")
    tuned.save_to_dir(str(tmp_path))
    again = searcher(search, first=proposals(1))
    again.restore_from_dir(str(tmp_path))
    assert names([again.suggest(name) for name in "bc"]) == ["t001", None]
    again.on_trial_complete("a", last_result(**MEASURED))
    assert search.told == [("t000", "complete", (7.5, 2.0**30), None, None)]


# -- in a real run ----------------------------------------------------------------------------------------------------


class Stage(tune.Trainable):  # type: ignore[misc]
    """A trial of no work, which ends as its rank says."""

    def setup(self, config: dict[str, Any]) -> None:
        self._config = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._config = new_config
        return True

    def step(self) -> dict[str, Any]:
        rank = self._config["config"]["rank"]
        if rank == 2:
            raise RuntimeError("rank 2 is not liked here")
        if rank == 3:
            return last_result("diverged", "loss is nan")
        if rank == 4:
            return {"done": True, "step": 1}
        return last_result(perplexity=float("nan") if rank == 5 else 10.0 - rank, peak_memory_bytes=rank)


@pytest.fixture
def local_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    quiet = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_TRAIN_V2_ENABLED": "0"}
    for name, value in {**quiet, "TUNE_MAX_PENDING_TRIALS_PG": "2"}.items():
        monkeypatch.setenv(name, value)
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        namespace="searcher",
    )
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test
    yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    ray.shutdown()


@pytest.mark.usefixtures("local_ray")
def test_a_run_of_tune_ends_every_trial_whatever_it_reports(tmp_path: Path) -> None:
    task = SearchTask("study", space([1, 3, 4, 5, 6, 2]), SearchSettings("grid", 6, 0), (0,), OBJECTIVES)
    search = StudySearch(tmp_path / "optuna.db", task)
    begun = [search.ask("bf16") for _ in range(2)]
    assert begun == search.unfinished()
    tuner = tune.Tuner(
        tune.with_resources(Stage, tune.PlacementGroupFactory([{"CPU": 0.5}])),
        tune_config=tune.TuneConfig(
            search_alg=searcher(search, places=2, first=search.unfinished()), num_samples=-1, reuse_actors=True
        ),
        run_config=tune.RunConfig(
            name="run",
            storage_path=str(tmp_path / "tune"),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    results = tuner.fit()
    assert len(results) == search.count("bf16") == 6
    assert search.unfinished() == []
    assert search.ask("bf16") is None
    trials = pickle.loads(pickle.dumps(search))._database.trials()
    told = {trial.user_attrs["trial_id"]: (trial.state.name, trial.user_attrs["status"]) for trial in trials}
    assert told == {
        "t000": ("COMPLETE", "complete"),
        "t001": ("FAIL", "diverged"),
        "t002": ("FAIL", "failed"),
        "t003": ("FAIL", "complete"),
        "t004": ("COMPLETE", "complete"),
        "t005": ("FAIL", "failed"),
    }
    assert [trial.values for trial in trials if trial.values] == [[9.0, 1.0], [4.0, 6.0]]
    assert os.listdir(tmp_path / "tune") == ["run"]
