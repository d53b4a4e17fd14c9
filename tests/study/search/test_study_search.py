"""What a search is told of how its trials ended, and how it continues after a kill."""

from __future__ import annotations

import itertools
import math
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from search_spaces.trial_config import TrialConfig
from study.records.objectives import Objective
from study.records.record import TrialRecord
from study.search.study_search import Proposal, StudySearch
from tests.support.search.searches import OBJECTIVES, SPACE, ask_all, optuna_study, search_in, values_of

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


# -- a search that is killed and opened again ------------------------------------------------------------------------


def search_again(folder: Path, algorithm: str) -> StudySearch:
    """A search of eight trials; the Bayesian one over perplexity and memory, which is known."""
    if algorithm != "gp":
        return search_in(folder, algorithm, trials=8)
    memory = Objective("peak_memory_bytes", "minimize", 1000.0)
    known = {"objectives": (OBJECTIVES[0], memory), "memory_of": lambda config: 10.0 * config.rank}
    return search_in(folder, algorithm, trials=8, **known)


def told_run(
    folder: Path, algorithm: str, pending: int, at_each_step: Callable[[StudySearch], StudySearch]
) -> list[Proposal]:
    """A search that is told in the order of asking, with so many pending; `at_each_step` may replace it by another."""
    search = search_again(folder, algorithm)
    waiting: list[Proposal] = []
    for precision in ("nf4", "bf16"):
        while True:
            search = at_each_step(search)
            proposal = search.ask(precision) if len(waiting) < pending else None
            if proposal is not None:
                waiting.append(proposal)
            elif waiting:
                search = at_each_step(search)
                ended = waiting.pop(0)
                status = "stopped" if ended.trial_id.endswith("2") else "complete"
                search.tell(ended.trial_id, status, values_of(ended.config), train_steps=4)
            else:
                break
    return search.proposals()


@pytest.mark.parametrize(("algorithm", "pending"), [("tpe", 2), ("nsga2", 1), ("gp", 2)])
def test_a_search_killed_on_its_way_proposes_what_it_would_have(tmp_path: Path, algorithm: str, pending: int) -> None:
    """At every third step it continues with a copy of the database as the kill left it."""
    folders = [tmp_path / str(number) for number in range(12)]
    for folder in folders[:2]:
        folder.mkdir()
    uninterrupted = told_run(folders[0], algorithm, pending, lambda search: search)
    steps, kills = itertools.count(), itertools.count(2)

    def killed(search: StudySearch) -> StudySearch:
        if next(steps) % 3:
            return search
        copy = next(kills)
        shutil.copytree(folders[copy - 1], folders[copy])
        again = search_again(folders[copy], algorithm)
        assert again.unfinished() == search.unfinished()
        assert again.proposals() == search.proposals()
        return again

    assert told_run(folders[1], algorithm, pending, killed) == uninterrupted
    assert next(kills) >= 6


def test_results_and_search_agree_after_a_kill_between_the_two(tmp_path: Path) -> None:
    search = search_in(tmp_path)
    told, recorded, neither, both = ask_all(search, "bf16")
    for proposal in (told, both):
        search.tell(proposal.trial_id, "complete", (7.0, 70.0))
    measured = {"perplexity": 8.0, "train_tokens_per_second": 80.0}
    records = [
        TrialRecord("s", recorded.trial_id, "complete", recorded.config, measurements=measured),
        TrialRecord("s", both.trial_id, "complete", both.config, measurements=measured),
        TrialRecord("s", "t007", "diverged", SPACE.grid([3])[7], reason="loss is nan"),  # the database has lost it
    ]
    search = search_in(tmp_path)
    search.reconcile(records)
    search.reconcile(records)  # again, which changes nothing
    assert search.unfinished() == [told, neither]
    trials = {trial.user_attrs["trial_id"]: trial for trial in optuna_study(tmp_path).trials}
    assert trials[recorded.trial_id].values == [8.0, 80.0]
    assert trials[both.trial_id].values == [7.0, 70.0]
    assert (trials["t007"].state, trials["t007"].user_attrs["reason"]) == (TrialState.FAIL, "loss is nan")
    search.tell(told.trial_id, "complete", (9.0, 90.0))  # it has run again
    assert search.unfinished() == [neither]
    assert optuna_study(tmp_path).trials[0].values == [7.0, 70.0]
    assert [one.trial_id for one in ask_all(search, "nf4")] == ["t004", "t005", "t006", "t008", "t009", "t010", "t011"]


def test_records_that_cannot_be_of_their_trials_are_named_and_not_told(tmp_path: Path) -> None:
    search = search_in(tmp_path)
    first, second, *_ = ask_all(search, "bf16")
    other = TrialConfig.from_dict({**second.config.to_dict(), "learning_rate": 0.5})
    measured = {"perplexity": 8.0, "train_tokens_per_second": 80.0}
    records = [
        TrialRecord("s", first.trial_id, "complete", second.config, measurements=measured),
        TrialRecord("s", "t005", "complete", other, measurements=measured),
        TrialRecord("s", "t999", "complete", second.config, measurements=measured),
        TrialRecord("s", second.trial_id, "complete", second.config, measurements=measured),
    ]
    wrong = search_in(tmp_path).reconcile(records)
    assert wrong == {
        first.trial_id: f"{first.trial_id} was asked for with another configuration",
        "t005": "its configuration is outside the space (learning_rate)",
    }
    trials = {trial.user_attrs["trial_id"]: trial for trial in optuna_study(tmp_path).trials}
    assert not trials[first.trial_id].state.is_finished()
    assert trials[second.trial_id].values == [8.0, 80.0]
    assert not {"t005", "t999"} & set(trials)


def test_a_copy_asks_the_same_database(tmp_path: Path) -> None:
    search = search_in(tmp_path)
    first = search.ask("bf16")
    copy = pickle.loads(pickle.dumps(search))
    assert copy.unfinished() == [first]
    assert copy.ask("bf16") == search.proposals()[1]
