"""Every way in which a trial can end becomes one record."""

from __future__ import annotations

import json
import pickle
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest

from search_spaces.trial_config import TrialConfig
from study.records.record import TrialRecord
from study.run.recorder import Recorder, failed_record, record_of

CONFIG = TrialConfig("nf4", 8, 16, 0.05, ("q_proj", "v_proj"), 2e-4)
OUTCOME: dict[str, Any] = {  # an Outcome's values, as a trial's last result carries them
    "status": "complete",
    "reason": None,
    "error": None,
    "infeasible": None,
    "measurements": {"perplexity": 7.5, "peak_memory_bytes": 2**30},
    "curve": [{"step": 5, "train_loss": 2.0, "perplexity": 8.0, "learning_rate": 1e-4}],
    "samples": [{"prompt": "p", "base": "b", "tuned": "t"}],
    "eval_rows": {"nats": [1.0], "tokens": [2]},
    "base_model": {"path": "llama"},
    "device": {"name": "CPU"},
    "dataset": {"fingerprint": "ff"},
    "comparable": {"quality": "a"},
    "has_adapter": True,
}


@dataclass
class StandInTrial:
    """What a Recorder looks at of a trial of Tune's."""

    trial_id: str = "t003"
    last_result: dict[str, Any] | None = None
    error: Exception | None = None
    config: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.config = {"trial_id": self.trial_id, "config": CONFIG.to_dict(), "keeper": "keeper"}

    def get_error(self) -> Exception | None:
        return self.error


def ended(event: str, trial: StandInTrial) -> TrialRecord:
    """The one record that a Recorder appends when Tune says that the trial is over."""
    appended: list[TrialRecord] = []
    getattr(Recorder("pubmedqa", appended.append), event)(iteration=1, trials=[trial], trial=trial)
    (record,) = appended
    assert (record.study, record.trial_id, record.config) == ("pubmedqa", "t003", CONFIG)
    assert TrialRecord.from_json(record.to_json()) == record
    return record


def result(**changed: Any) -> dict[str, Any]:
    return {"done": True, "step": 9, "record_status": "complete", "outcome": json.dumps({**OUTCOME, **changed})}


def test_an_outcome_becomes_a_record_with_all_it_says() -> None:
    record = ended("on_trial_complete", StandInTrial(last_result=result()))
    assert (record.status, record.reason, record.error) == ("complete", None, None)
    assert record.adapter == "adapters/t003"
    assert {name: record.measurements[name] for name in OUTCOME["measurements"]} == OUTCOME["measurements"]
    for name in ("eval_rows", "base_model", "device", "dataset", "comparable"):
        assert getattr(record, name) == OUTCOME[name]
    assert record.curve == tuple(OUTCOME["curve"])
    assert record.samples == tuple(OUTCOME["samples"])


@pytest.mark.parametrize("status", ["infeasible", "diverged", "failed"])
def test_other_ends_keep_status_and_reason_and_name_no_adapter(status: str) -> None:
    facts = {"moment": "training", "requested_bytes": 9, "available_bytes": 8, "source": "observed"}
    changed = {"status": status, "reason": "why", "infeasible": facts, "has_adapter": False}
    record = ended("on_trial_complete", StandInTrial(last_result=result(**changed)))
    assert (record.status, record.reason, record.infeasible, record.adapter) == (status, "why", facts, None)


@pytest.mark.parametrize("last", [None, {}, {"step": 5, "perplexity": 8.0}])
def test_no_outcome_is_a_failure(last: dict[str, Any] | None) -> None:
    record = ended("on_trial_complete", StandInTrial(last_result=last))
    assert (record.status, record.reason) == ("failed", "the trial ended without an outcome")


def test_a_stopped_trial_keeps_what_it_came_to_and_why_it_was_stopped() -> None:
    so_far = json.dumps({**OUTCOME, "status": "stopped", "has_adapter": False, "samples": [], "eval_rows": None})
    trial = StandInTrial(last_result={"step": 5, "perplexity": 8.0, "so_far": so_far})
    appended: list[TrialRecord] = []
    reasons = {"t003": "dominated at step 5 of 9"}
    Recorder("s", appended.append, stop_reason=reasons.get).on_trial_complete(1, [trial], trial)
    (record,) = appended
    assert (record.status, record.reason, record.adapter) == ("stopped", "dominated at step 5 of 9", None)
    assert record.curve == tuple(OUTCOME["curve"])
    assert record.measurements["perplexity"] == 7.5
    # What ends for another reason, as all do when the store cannot be written, is not said to be stopped.
    assert ended("on_trial_complete", trial).status == "failed"


def test_an_error_of_the_trial_s_process_is_kept_and_its_last_line_is_the_reason() -> None:
    trial = StandInTrial(last_result=result(), error=RuntimeError("Traceback\n  in step\nValueError: odd\n"))
    record = ended("on_trial_error", trial)
    assert (record.status, record.reason) == ("failed", "ValueError: odd")
    assert record.error == "Traceback\n  in step\nValueError: odd\n"
    assert record.measurements["perplexity"] is None


def test_a_process_that_died_without_a_word() -> None:
    record = ended("on_trial_error", StandInTrial())
    assert (record.status, record.reason) == ("failed", "the trial's process died")


def test_the_start_of_a_trial_is_told_under_our_name() -> None:
    started: list[tuple[str, TrialConfig]] = []
    recorder = Recorder("s", lambda record: None, lambda *start: started.append(start))
    recorder.on_trial_start(iteration=1, trials=[], trial=StandInTrial())
    assert started == [("t003", CONFIG)]


def test_tune_may_pickle_a_recorder_whatever_it_appends_to() -> None:
    lock = threading.Lock()
    pickle.dumps(Recorder("s", lambda record: lock))


def test_record_of_leaves_the_outcome_as_it_was() -> None:
    outcome = json.loads(json.dumps(OUTCOME))
    record_of("s", "t0", CONFIG, outcome)
    assert outcome == OUTCOME


def test_a_failed_record_has_a_reason_whatever_the_error_says() -> None:
    assert failed_record("s", "t0", CONFIG, " \n ").reason == "the trial's process died"
    assert failed_record("s", "t0", CONFIG, "one line").reason == "one line"
