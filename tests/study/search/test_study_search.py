"""What a search is told of how its trials ended."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from study.records.record import TrialRecord
from tests.support.search.searches import (
    ask_all,
    optuna_study,
    search_in,
)

ENDS: list[tuple[str, Any, str | None, TrialState, str | None]] = [
    ("complete", (7.5, 100.0), None, TrialState.COMPLETE, None),
    ("complete", (math.nan, 1.0), None, TrialState.FAIL, "not every objective"),
    ("complete", (1.0, math.inf), None, TrialState.FAIL, "not every objective"),
    ("complete", None, None, TrialState.FAIL, "perplexity, train_tokens_per_second"),
    ("complete", (1.0,), "the disk was full", TrialState.FAIL, "the disk was full"),
    ("stopped", None, "rung 2", TrialState.PRUNED, "rung 2"),
    ("stopped", (7.5, 100.0), None, TrialState.PRUNED, None),
    ("diverged", None, "loss is nan", TrialState.FAIL, "loss is nan"),
    ("failed", (7.5, 100.0), "its host died", TrialState.FAIL, "its host died"),
    ("infeasible", None, "needs 16 GiB", TrialState.FAIL, "needs 16 GiB"),
]


def test_every_end_is_told_and_the_search_continues(tmp_path: Path) -> None:
    search = search_in(tmp_path, "tpe", trials=2 * len(ENDS) + 2)
    for status, values, reason, *_ in ENDS:
        proposal = search.ask("nf4")
        assert proposal is not None
        search.tell(proposal.trial_id, status, values, reason)
        assert search.unfinished() == []
    for trial, (status, values, _, state, said) in zip(optuna_study(tmp_path).trials, ENDS, strict=True):
        assert trial.state == state
        assert trial.values == (list(values) if state == TrialState.COMPLETE else None)
        assert trial.user_attrs["status"] == status
        assert trial.user_attrs["reason"] == said or said in trial.user_attrs["reason"]
    assert search.ask("nf4") is not None


def test_a_stopped_trial_is_pruned_with_its_fidelity_also_from_its_record(tmp_path: Path) -> None:
    search = search_in(tmp_path)
    told, recorded = ask_all(search, "bf16")[:2]
    search.tell(told.trial_id, "stopped", (7.5, 100.0), "dominated", train_steps=6)
    measured = {"perplexity": 8.5, "train_tokens_per_second": 90.0, "train_steps": 3}
    search.reconcile([TrialRecord("s", recorded.trial_id, "stopped", recorded.config, measurements=measured)])
    found = [
        (trial.state, trial.values, trial.user_attrs["train_steps"], trial.user_attrs["values_so_far"])
        for trial in optuna_study(tmp_path).trials[:2]
    ]
    assert found == [(TrialState.PRUNED, None, 6, [7.5, 100.0]), (TrialState.PRUNED, None, 3, [8.5, 90.0])]


def test_telling_again_changes_nothing(tmp_path: Path) -> None:
    search = search_in(tmp_path)
    proposal = ask_all(search, "bf16")[0]
    search.tell(proposal.trial_id, "complete", (7.5, 100.0))
    search.tell(proposal.trial_id, "failed", None, "later")
    search_in(tmp_path).tell(proposal.trial_id, "complete", (1.0, 1.0))
    trial = optuna_study(tmp_path).trials[0]
    assert (trial.values, trial.user_attrs["status"], trial.user_attrs["reason"]) == ([7.5, 100.0], "complete", None)


def test_unknown_trials_and_statuses_are_refused(tmp_path: Path) -> None:
    search = search_in(tmp_path)
    with pytest.raises(ValueError, match="trial_id must be one that was asked for; it is 't000'"):
        search.tell("t000", "complete", (1.0, 1.0))
    search.ask("bf16")
    with pytest.raises(ValueError, match=r"status must be one of complete, .*; it is 'pruned'"):
        search.tell("t000", "pruned", None)
    assert [one.trial_id for one in search.unfinished()] == ["t000"]
