"""The database: what a dashboard reads in it, where it may lie, and when it is refused."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from search_spaces.parameters import parse_space
from search_spaces.trial_config import TrialConfig
from study.errors import StoreError
from tests.support.search.searches import (
    OBJECTIVES,
    SPACE,
    ask_all,
    optuna_study,
    search_in,
    trial_names,
    values_of,
)


def test_the_database_is_one_that_optuna_and_its_dashboard_read(tmp_path: Path) -> None:
    search = search_in(tmp_path, "nsga2")
    for proposal in ask_all(search, "bf16", "nf4"):
        search.tell(proposal.trial_id, "complete", values_of(proposal.config))
    study = optuna_study(tmp_path)
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert study.metric_names == ["perplexity", "train_tokens_per_second"]
    assert [trial.user_attrs["trial_id"] for trial in study.trials] == trial_names(10)
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
        ({"seeds": (0, 1)}, "seeds"),
        ({"space": parse_space({**SPACE.to_mapping(), "rank": 8})}, "space"),
        ({"objectives": OBJECTIVES[::-1]}, "metrics, directions"),
        ({"algorithm": "random", "trials": 4}, "algorithm, trials"),
        ({"try_first": tuple(SPACE.grid([3])[:1])}, "try_first"),
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


def _undominated(values: list[tuple[float, float]]) -> set[int]:
    """By brute force: minimize the first, maximize the second."""
    losses = [(first, -second) for first, second in values]
    return {
        number
        for number, one in enumerate(losses)
        if not any(other != one and other[0] <= one[0] and other[1] <= one[1] for other in losses)
    }
