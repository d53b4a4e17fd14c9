"""A search that is killed and opened again continues as if it had not been."""

from __future__ import annotations

import itertools
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.trial import TrialState

from search_spaces.trial_config import TrialConfig
from study.records.objectives import Objective
from study.records.record import TrialRecord
from study.search.study_search import Proposal, StudySearch
from tests.support.search.searches import (
    OBJECTIVES,
    SPACE,
    ask_all,
    optuna_study,
    search_in,
    values_of,
)


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
