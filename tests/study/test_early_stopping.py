"""The scheduler in a real, small Tune run, and what it makes of results."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import tune

from search_spaces.trial_config import TrialConfig
from study.early_stopping import EarlyStopping, configuration_of, recorded_results
from study.pareto_halving import ParetoHalving, Verdict
from study.records import TrialRecord

STEPS = 8
# Perplexity at every step, and memory, by rank: 4 is dominated by 2, the others are on the front.
CURVES = {2: (10.0, 1.0), 4: (11.0, 2.0), 8: (8.0, 3.0), 16: (6.0, 4.0)}


def configured(rank: int, seed: int = 0) -> TrialConfig:
    """A configuration of that rank."""
    return TrialConfig("nf4", rank, 16.0, 0.0, ("q_proj",), 1e-4, seed)


class CurveTrial(tune.Trainable):
    """Reports two steps at a time, as LoraTrial does; its last result has an outcome."""

    def setup(self, config: dict[str, Any]) -> None:
        self._rank, self._step = config["config"]["rank"], 0

    def step(self) -> dict[str, Any]:
        self._step += 2
        perplexity, memory = CURVES[self._rank]
        if self._step > STEPS:
            return {"step": STEPS, "record_status": "complete", "outcome": _outcome(self._rank), "done": True}
        return {"step": self._step, "perplexity": perplexity, "peak_memory_bytes": memory}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing is kept: Tune asks at a trial's end."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True


class Watch(tune.Callback):  # type: ignore[misc]
    """Notes how each trial ended, and with what last result."""

    def __init__(self) -> None:
        self.ended: dict[str, dict[str, Any]] = {}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.ended[trial.config["trial_id"]] = dict(trial.last_result)


def _outcome(rank: int) -> str:
    perplexity, memory = CURVES[rank]
    curve = [{"step": step, "perplexity": perplexity} for step in range(2, STEPS + 1, 2)]
    return json.dumps({"curve": curve, "measurements": {"peak_memory_bytes": memory}})


@pytest.fixture(scope="module")
def one_cpu() -> Iterator[None]:
    """A Ray of one CPU: trials run one after another."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_a_dominated_trial_is_stopped_in_a_real_run(
    one_cpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    halving = ParetoHalving(STEPS, rungs=(0.25, 0.5), keep_fraction=0.1, strata=1, stratum_fraction=0.1)
    scheduler, watch = EarlyStopping(halving), Watch()
    tuner = tune.Tuner(
        tune.with_resources(CurveTrial, {"cpu": 1}),
        param_space={
            "trial_id": tune.sample_from(lambda config: f"t{config['config']['rank']}"),
            "config": tune.grid_search([configured(rank).to_dict() for rank in (2, 4, 8, 16)]),
        },
        tune_config=tune.TuneConfig(scheduler=scheduler, max_concurrent_trials=1, reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(tmp_path), callbacks=[watch], verbose=0),
    )
    results = tuner.fit()
    assert results.num_errors == 0
    assert set(watch.ended) == {"t2", "t4", "t8", "t16"}
    assert {trial for trial, last in watch.ended.items() if "outcome" in last} == {"t2", "t8", "t16"}
    # The record of the stopped one is made from its last result and the scheduler's reason.
    assert watch.ended["t4"]["step"] == 2
    assert scheduler.reason("t4") == "dominated at step 2"
    assert all(scheduler.reason(trial) is None for trial in ("t2", "t8", "t16"))


def tune_trial(rank: int, seed: int = 0) -> SimpleNamespace:
    """What the scheduler sees of Tune's trial."""
    return SimpleNamespace(config={"trial_id": f"t{rank}-{seed}", "config": configured(rank, seed).to_dict()})


def told(scheduler: EarlyStopping, rank: int, step: int, loss: float | None, **more: Any) -> str:
    """The scheduler's answer to a result."""
    return scheduler.on_trial_result(None, tune_trial(rank), {"step": step, "perplexity": loss, **more})


def tight() -> ParetoHalving:
    """One rung at step 2 of 8; only the front goes on."""
    return ParetoHalving(STEPS, rungs=(0.25,), keep_fraction=0.01, strata=1, stratum_fraction=0.01)


def test_a_result_without_evaluation_or_memory_goes_on() -> None:
    scheduler = EarlyStopping(tight())
    assert told(scheduler, 2, 2, 5.0, peak_memory_bytes=1) == "CONTINUE"
    assert told(scheduler, 4, 2, None, peak_memory_bytes=9) == "CONTINUE"
    assert scheduler.on_trial_result(None, tune_trial(4), {"step": 2}) == "CONTINUE"
    assert told(scheduler, 4, 2, 9.0) == "CONTINUE"
    assert told(scheduler, 4, 2, 9.0, peak_memory_bytes=9) == "STOP"
    assert scheduler.debug_string() == "Early stopping: 1 trials stopped."


def test_the_curve_so_far_counts_at_the_rungs_passed_before() -> None:
    scheduler = EarlyStopping(tight())
    told(scheduler, 2, 2, 5.0, peak_memory_bytes=1)
    so_far = {"curve": [{"step": 2, "perplexity": 9.0}], "measurements": {"peak_memory_bytes": 9}}
    # It went on from a checkpoint at step 4, and has become better; what it had at step 2 is what counts there.
    assert told(scheduler, 4, 6, 4.0, peak_memory_bytes=9, so_far=json.dumps(so_far)) == "STOP"
    assert scheduler.reason("t4-0") == "dominated at step 6"


def test_a_complete_trial_leaves_its_curve_for_others() -> None:
    scheduler = EarlyStopping(tight())
    scheduler.on_trial_complete(None, tune_trial(2), {"step": STEPS, "outcome": _outcome(2)})
    scheduler.on_trial_complete(None, tune_trial(8), {"step": 2})  # stopped: it has told all it knew
    assert told(scheduler, 4, 2, 11.0, peak_memory_bytes=2.0) == "STOP"


def test_records_of_an_interrupted_study_are_judged_against() -> None:
    curve = ({"step": 2, "perplexity": 10.0}, {"step": 4, "perplexity": None})
    ended = TrialRecord("s", "t2", "complete", configured(2), measurements={"peak_memory_bytes": 1}, curve=curve)
    assert [(one.trial, one.step, one.loss, one.memory) for one in recorded_results([ended])] == [("t2", 2, 10.0, 1)]
    assert told(EarlyStopping(tight(), [ended]), 4, 2, 11.0, peak_memory_bytes=2) == "STOP"
    assert told(EarlyStopping(tight()), 4, 2, 11.0, peak_memory_bytes=2) == "CONTINUE"


def test_seeds_share_a_configuration() -> None:
    assert configuration_of(configured(2, 0)) == configuration_of(configured(2, 7))
    assert configuration_of(configured(2)) != configuration_of(configured(4))


def test_any_halving_will_do() -> None:
    class Never:
        def on_result(self, *result: Any) -> Verdict:
            return "stop"

    assert told(EarlyStopping(Never()), 2, 1, 5.0, peak_memory_bytes=1) == "STOP"
