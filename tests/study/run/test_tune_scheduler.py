"""What the scheduler makes of results; tests/test_whole_study.py has it in a real run."""

from __future__ import annotations

import json
import pickle
from types import SimpleNamespace
from typing import Any

import pytest

from search_spaces.trial_config import TrialConfig
from study.config.study_config import EarlyStoppingSettings
from study.records.record import TrialRecord
from study.run.tune_scheduler import EarlyStopping, configuration_of, early_stopping, halving_of, recorded_results
from study.search.early_stopping import ParetoHalving, PerplexityHalving, Verdict

STEPS = 8
# Perplexity at every step, and memory, by rank: 4 is dominated by 2, the others are on the front.
CURVES = {2: (10.0, 1.0), 4: (11.0, 2.0), 8: (8.0, 3.0), 16: (6.0, 4.0)}


def configured(rank: int, seed: int = 0) -> TrialConfig:
    """A configuration of that rank."""
    return TrialConfig("nf4", rank, 16.0, 0.0, ("q_proj",), 1e-4, seed)


def _outcome(rank: int) -> str:
    perplexity, memory = CURVES[rank]
    curve = [{"step": step, "perplexity": perplexity} for step in range(2, STEPS + 1, 2)]
    return json.dumps({"curve": curve, "measurements": {"peak_memory_bytes": memory}})


def tune_trial(rank: int, seed: int = 0) -> SimpleNamespace:
    """What the scheduler sees of Tune's trial."""
    return SimpleNamespace(config={"trial_id": f"t{rank}-{seed}", "config": configured(rank, seed).to_dict()})


def told(scheduler: EarlyStopping, rank: int, step: int, loss: float | None, **more: Any) -> str:
    """What the scheduler says to a result."""
    result = {"step": step, "total_steps": STEPS, "perplexity": loss, **more}
    return scheduler.on_trial_result(None, tune_trial(rank), result)


def tight(total_steps: int) -> ParetoHalving:
    """One rung after a quarter; only the front continues."""
    return ParetoHalving(total_steps, rungs=(0.25,), keep_fraction=0.01, strata=1, stratum_fraction=0.01)


def test_a_result_without_evaluation_or_memory_continues() -> None:
    scheduler = EarlyStopping(tight)
    assert told(scheduler, 2, 2, 5.0, peak_memory_bytes=1) == "CONTINUE"
    assert told(scheduler, 4, 2, None, peak_memory_bytes=9) == "CONTINUE"
    assert scheduler.on_trial_result(None, tune_trial(4), {"step": 2}) == "CONTINUE"
    assert told(scheduler, 4, 2, 9.0) == "CONTINUE"
    assert told(scheduler, 4, 2, 9.0, peak_memory_bytes=9) == "STOP"
    assert scheduler.debug_string() == "Early stopping: 1 trials stopped."


def test_nothing_is_said_without_the_training_s_length() -> None:
    scheduler = EarlyStopping(tight)
    assert told(scheduler, 2, 2, float("nan"), peak_memory_bytes=1, total_steps=None) == "CONTINUE"
    assert told(scheduler, 2, 2, float("nan"), peak_memory_bytes=1) == "STOP"


def test_the_curve_so_far_counts_at_the_rungs_passed_before() -> None:
    scheduler = EarlyStopping(tight)
    told(scheduler, 2, 2, 5.0, peak_memory_bytes=1)
    so_far = {"curve": [{"step": 2, "perplexity": 9.0}], "measurements": {"peak_memory_bytes": 9}}
    # It continued from a checkpoint at step 4, and has become better; what it had at step 2 is what counts there.
    assert told(scheduler, 4, 6, 4.0, peak_memory_bytes=9, so_far=json.dumps(so_far)) == "STOP"
    assert scheduler.reason("t4-0") == "dominated at step 6 of 8"


@pytest.mark.parametrize("algorithm", ["pareto_halving", "asha"])
def test_a_curve_that_holds_the_step_itself_changes_no_verdict(algorithm: str) -> None:
    """As a host reports it: what the trial's record would be if it were stopped here, this evaluation included."""
    settings = EarlyStoppingSettings(algorithm, (0.25,), 0.1)
    bare, whole = early_stopping(settings, []), early_stopping(settings, [])
    verdicts = []
    for rank in (2, 4, 8, 16, 32, 64):
        loss, memory = 5.0 + rank, 100.0 + rank
        curve = [{"step": 1, "perplexity": loss + 1}, {"step": 2, "perplexity": loss}]
        so_far = json.dumps({"curve": curve, "measurements": {"peak_memory_bytes": memory}})
        verdicts.append(told(bare, rank, 2, loss, peak_memory_bytes=memory))
        assert told(whole, rank, 2, loss, peak_memory_bytes=memory, so_far=so_far) == verdicts[-1]
    assert verdicts[0] == "CONTINUE"
    assert "STOP" in verdicts[1:]


@pytest.mark.parametrize("algorithm", ["pareto_halving", "asha"])
def test_grace_to_the_end_stops_nobody(algorithm: str) -> None:
    scheduler = early_stopping(EarlyStoppingSettings(algorithm, grace_steps=STEPS), [])
    assert {told(scheduler, rank, 4, 5.0 + rank, peak_memory_bytes=rank) for rank in (2, 4, 8)} == {"CONTINUE"}


def test_a_complete_trial_leaves_its_curve_for_others() -> None:
    scheduler = EarlyStopping(tight)
    scheduler.on_trial_complete(None, tune_trial(2), {"step": STEPS, "outcome": _outcome(2)})
    scheduler.on_trial_complete(None, tune_trial(8), {"step": 2})  # stopped: it has told all it knew
    assert told(scheduler, 4, 2, 11.0, peak_memory_bytes=2.0) == "STOP"


def test_records_of_an_interrupted_study_are_judged_against() -> None:
    curve = ({"step": 2, "perplexity": 10.0}, {"step": 4, "perplexity": None})
    ended = TrialRecord("s", "t2", "complete", configured(2), measurements={"peak_memory_bytes": 1}, curve=curve)
    assert [(one.trial, one.step, one.loss, one.memory) for one in recorded_results([ended])] == [("t2", 2, 10.0, 1)]
    assert told(EarlyStopping(tight, [ended]), 4, 2, 11.0, peak_memory_bytes=2) == "STOP"
    assert told(EarlyStopping(tight), 4, 2, 11.0, peak_memory_bytes=2) == "CONTINUE"


def test_seeds_share_a_configuration() -> None:
    assert configuration_of(configured(2, 0)) == configuration_of(configured(2, 7))
    assert configuration_of(configured(2)) != configuration_of(configured(4))


def test_any_halving_will_do() -> None:
    class Never:
        def on_result(self, *result: Any) -> Verdict:
            return "stop"

    assert told(EarlyStopping(lambda total_steps: Never()), 2, 1, 5.0, peak_memory_bytes=1) == "STOP"


def test_a_study_s_settings_make_its_halving() -> None:
    settings = EarlyStoppingSettings("pareto_halving", (0.25, 0.5), 0.5, 3, 2, 0.2)
    halving = halving_of(settings, STEPS)
    assert isinstance(halving, ParetoHalving)
    assert (halving.rungs, halving.keep_fraction, halving.strata, halving.stratum_fraction) == ((3, 4), 0.5, 2, 0.2)
    plain = halving_of(EarlyStoppingSettings("asha", (0.25, 0.5), 0.5, 3), STEPS)
    assert isinstance(plain, PerplexityHalving)
    assert (plain.rungs, plain.keep_fraction) == ((3, 4), 0.5)


@pytest.mark.parametrize(("algorithm", "verdict"), [("none", "CONTINUE"), ("pareto_halving", "STOP"), ("asha", "STOP")])
def test_a_study_s_scheduler_continues_from_its_records(algorithm: str, verdict: str) -> None:
    curve = ({"step": 2, "perplexity": 10.0},)
    ended = TrialRecord("s", "t2", "complete", configured(2), measurements={"peak_memory_bytes": 1}, curve=curve)
    settings = EarlyStoppingSettings(algorithm, (0.25,), 0.01, 0, 1, 0.01)
    scheduler = pickle.loads(pickle.dumps(early_stopping(settings, [ended])))  # Tune keeps a copy of it
    assert told(scheduler, 4, 2, 11.0, peak_memory_bytes=2) == verdict
    reasons = {"none": None, "pareto_halving": "dominated at step 2 of 8", "asha": "not among the best at step 2 of 8"}
    assert scheduler.reason("t4-0") == reasons[algorithm]
