"""The study's search: what it asks for, what it is told, and that a kill changes neither."""

from __future__ import annotations

import itertools
import math
import pickle
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from search_spaces.parameters import parse_space
from search_spaces.trial_config import TrialConfig
from study.errors import StoreError
from study.records.objectives import Objective
from study.records.record import TrialRecord
from study.search.study_search import Proposal, StudySearch

OBJECTIVES = (Objective("perplexity", "minimize", 12.0), Objective("train_tokens_per_second", "maximize", 1.0))
SPACE = parse_space(
    {
        "precision": {"choice": ["bf16", "nf4"]},
        "rank": {"choice": [4, 16]},
        "target_modules": {"choice": ["q_v", "all_linear"]},
        "lora_alpha": {"rank_times": 2},
        "lora_dropout": {"choice": [0.0, 0.1], "when": {"precision": "nf4"}, "otherwise": 0.05},
        "learning_rate": {"log_float": [1e-5, 1e-3]},
    }
)


def search_in(folder: Path, algorithm: str = "grid", **changed: Any) -> StudySearch:
    plan = {"space": SPACE, "trials": None if algorithm == "grid" else 10, "seed": 0, "seeds": [3]}
    return StudySearch(folder / "optuna.db", algorithm=algorithm, **{**plan, "objectives": OBJECTIVES, **changed})


def ask_all(search: StudySearch, *precisions: str) -> list[Proposal]:
    return [proposal for one in precisions for proposal in iter(lambda one=one: search.ask(one), None)]


def values_of(config: TrialConfig) -> tuple[float, float]:
    return 10 - config.rank / 4 + abs(math.log(config.learning_rate / 2e-4)), 100 / len(config.target_modules)


def optuna_study(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="study", storage=f"sqlite:///{folder / 'optuna.db'}")


# -- what is asked for ------------------------------------------------------------------------------------------------


def test_a_grid_is_asked_for_in_its_order_whatever_phase_comes_first(tmp_path: Path) -> None:
    names = {f"t{number:03}": config for number, config in enumerate(SPACE.grid([3, 4]))}
    search = search_in(tmp_path, seeds=[3, 4])
    for_nf4, for_bf16 = ask_all(search, "nf4"), ask_all(search, "bf16")
    assert {proposal.trial_id: proposal.config for proposal in for_nf4 + for_bf16} == names
    for precision, asked in (("nf4", for_nf4), ("bf16", for_bf16)):
        assert [one.trial_id for one in asked] == [name for name in names if names[name].precision == precision]
        assert search.count(precision) == len(asked) == {"nf4": 16, "bf16": 8}[precision]
    assert search.proposals() == for_nf4 + for_bf16
    assert [one.trial_id for one in search.unfinished()] == list(names)


def test_a_shuffled_grid_keeps_its_names_and_its_order_also_after_a_restart(tmp_path: Path) -> None:
    grid = enumerate(SPACE.grid([3, 4]))
    nf4 = {f"t{number:03}": config for number, config in grid if config.precision == "nf4"}
    places = [tmp_path / name for name in ("whole", "torn", "other")]
    for folder in places:
        folder.mkdir()
    whole = ask_all(search_in(places[0], seeds=[3, 4], shuffled=True), "nf4")
    torn = search_in(places[1], seeds=[3, 4], shuffled=True)
    before = [torn.ask("nf4") for _ in range(5)]
    after = ask_all(search_in(places[1], seeds=[3, 4], shuffled=True), "nf4")
    assert [*before, *after] == whole
    assert {one.trial_id: one.config for one in whole} == nf4
    assert [one.trial_id for one in whole] != sorted(one.trial_id for one in whole)
    assert whole != ask_all(search_in(places[2], seeds=[3, 4], seed=8, shuffled=True), "nf4")


def test_trials_are_dealt_out_evenly_and_named_precision_after_precision(tmp_path: Path) -> None:
    search = search_in(tmp_path, "random", trials=7)
    assert (search.count("bf16"), search.count("nf4")) == (4, 3)
    assert [one.trial_id for one in ask_all(search, "nf4", "bf16")] == ["t004", "t005", "t006", *_names(4)]
    assert {one.config.seed for one in search.proposals()} == {3}


def test_random_trials_do_not_depend_on_the_order_of_phases(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one = ask_all(search_in(tmp_path, "random"), "bf16", "nf4")
    assert ask_all(search_in(tmp_path / "other", "random"), "nf4", "bf16") == one[5:] + one[:5]


def test_more_trials_than_configurations_end_early_without_repeating(tmp_path: Path) -> None:
    space = parse_space({**SPACE.to_mapping(), "learning_rate": 1e-4})
    search = search_in(tmp_path, "tpe", space=space, trials=40)
    assert (search.count("bf16"), search.count("nf4")) == (4, 8)
    asked = ask_all(search, "bf16", "nf4")
    assert {one.config for one in asked} == set(space.grid([3]))
    assert len(asked) == 12


def test_what_is_to_be_tried_first_comes_first_in_its_precision(tmp_path: Path) -> None:
    first = [config for config in SPACE.grid([3]) if config.precision == "nf4" and config.rank == 16][:3]
    search = search_in(tmp_path, "tpe", trials=5, try_first=first)
    assert (search.count("bf16"), search.count("nf4")) == (2, 3)  # as many as were to be tried, the others the rest
    asked = ask_all(search, "bf16", "nf4")
    assert [one.trial_id for one in asked] == _names(5)
    assert [one.config for one in asked][2:] == first
    assert len({one.config for one in asked}) == 5
    assert ask_all(search_in(tmp_path, "tpe", trials=5, try_first=first), "nf4") == []


def test_names_have_a_digit_for_every_trial(tmp_path: Path) -> None:
    search = search_in(tmp_path, "random", trials=2000)
    assert (search.ask("nf4") or Proposal("", SPACE.grid([3])[0])).trial_id == "t1000"
    assert (search.ask("bf16") or Proposal("", SPACE.grid([3])[0])).trial_id == "t0000"


def test_a_searcher_without_a_number_of_trials_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trials must say how many configurations tpe tries; it is None"):
        search_in(tmp_path, "tpe", trials=None)


# -- what it is told --------------------------------------------------------------------------------------------------

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


def test_every_end_is_told_and_the_search_goes_on(tmp_path: Path) -> None:
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


# -- what a dashboard shows -------------------------------------------------------------------------------------------


def test_the_database_is_one_that_optuna_and_its_dashboard_read(tmp_path: Path) -> None:
    search = search_in(tmp_path, "nsga2")
    for proposal in ask_all(search, "bf16", "nf4"):
        search.tell(proposal.trial_id, "complete", values_of(proposal.config))
    study = optuna_study(tmp_path)
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert study.metric_names == ["perplexity", "train_tokens_per_second"]
    assert [trial.user_attrs["trial_id"] for trial in study.trials] == _names(10)
    for trial in study.trials:
        config = TrialConfig.from_dict(trial.user_attrs["config"])
        assert TrialConfig.from_dict({**config.to_dict(), **trial.params}) == config
        assert trial.distributions["precision"].choices == ("bf16", "nf4")  # one search space for all phases
        assert trial.user_attrs["seed"] == 3
    best = {trial.number for trial in study.best_trials}
    assert best == _undominated([values_of(one.config) for one in search.proposals()])


@pytest.fixture
def optuna_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What Optuna would write on the screen, from the verbosity on that it has by itself."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    optuna.logging.enable_propagation()
    yield caplog
    optuna.logging.disable_propagation()
    optuna.logging.set_verbosity(before)


def test_optuna_stays_quiet(tmp_path: Path, optuna_log: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for algorithm in ("tpe", "nsga2"):
            (tmp_path / algorithm).mkdir()
            search = search_in(tmp_path / algorithm, algorithm, trials=6)
            for precision, status in itertools.product(("bf16", "nf4"), ("complete", "failed", "stopped")):
                proposal = search.ask(precision)
                assert proposal is not None
                search.tell(proposal.trial_id, status, values_of(proposal.config))
    assert optuna_log.messages == []


# -- kills ------------------------------------------------------------------------------------------------------------


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
    """At every third step it goes on with a copy of the database as the kill left it."""
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


def test_a_copy_asks_the_same_database(tmp_path: Path) -> None:
    search = search_in(tmp_path)
    first = search.ask("bf16")
    copy = pickle.loads(pickle.dumps(search))
    assert copy.unfinished() == [first]
    assert copy.ask("bf16") == search.proposals()[1]


# -- databases --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a b", "q?x=1", "per%20cent", "brace{0}", "ünï#@:"])
def test_any_folder_will_do(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    search_in(tmp_path / name).ask("bf16")
    assert [path.name for path in (tmp_path / name).iterdir()] == ["optuna.db"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"seeds": [0, 1]}, "seeds"),
        ({"space": parse_space({**SPACE.to_mapping(), "rank": 8})}, "space"),
        ({"objectives": OBJECTIVES[::-1]}, "metrics, directions"),
        ({"algorithm": "random", "trials": 4}, "algorithm, trials"),
        ({"try_first": SPACE.grid([3])[:1]}, "try_first"),
    ],
)
def test_another_search_than_the_one_begun_is_refused(tmp_path: Path, changed: dict[str, Any], named: str) -> None:
    search_in(tmp_path).ask("bf16")
    with pytest.raises(StoreError, match=f"it was begun with other {named}. Restore the study directory's study.yaml"):
        search_in(tmp_path, **changed)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "optuna.db").write_text("no database\n" * 100)
    with pytest.raises(StoreError, match=r"optuna\.db must be a database that Optuna can read and write; .*not a data"):
        search_in(tmp_path)
    assert (tmp_path / "optuna.db").read_text() == "no database\n" * 100


def _names(count: int) -> list[str]:
    return [f"t{number:03}" for number in range(count)]


def _undominated(values: list[tuple[float, float]]) -> set[int]:
    """By brute force: minimize the first, maximize the second."""
    losses = [(first, -second) for first, second in values]
    return {
        number
        for number, one in enumerate(losses)
        if not any(other != one and other[0] <= one[0] and other[1] <= one[1] for other in losses)
    }
