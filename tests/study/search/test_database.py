"""The database: what a dashboard reads in it, where it may lie, and when it is refused."""

from __future__ import annotations

import itertools
import os
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from search_spaces.parameters import parse_space
from search_spaces.trial_config import TrialConfig
from study.errors import StoreError
from study.search import database
from study.search.algorithms import fixed_trial
from study.search.trial_attributes import asked_attributes
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


def test_an_empty_file_becomes_the_database(tmp_path: Path) -> None:
    (tmp_path / "optuna.db").touch()
    assert search_in(tmp_path).ask("bf16") is not None


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:20_000])


def _scribble(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[4096:40_000] = b"\xff" * (40_000 - 4096)
    file.write_bytes(content)


def _other_version(file: Path) -> None:
    _execute(file, "UPDATE alembic_version SET version_num = 'v99.0.0.a'")


def _unknown_state(file: Path) -> None:
    _execute(file, "UPDATE trials SET state = 'ODD'")


def _broken_attributes(file: Path) -> None:
    _execute(file, "UPDATE trial_user_attributes SET value_json = '{'")


def _execute(file: Path, statement: str) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize("spoil", [_truncate, _scribble, _other_version, _unknown_state, _broken_attributes])
def test_a_damaged_database_is_refused_with_the_way_to_make_it_anew(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    ask_all(search_in(tmp_path), "bf16")
    spoil(tmp_path / "optuna.db")
    with pytest.raises(StoreError, match="`resume` makes it anew from the records"):
        search_in(tmp_path).unfinished()


def test_the_database_of_another_study_is_refused(tmp_path: Path) -> None:
    optuna.create_study(storage=f"sqlite:///{tmp_path / 'optuna.db'}", study_name="another")
    with pytest.raises(StoreError, match="must hold the search of this study, study; it holds that of another"):
        search_in(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "device"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "optuna.db"
    make: dict[str, Callable[[], object]] = {
        "folder": file.mkdir,
        "pipe": lambda: os.mkfifo(file),
        "link": lambda: file.symlink_to(tmp_path / "elsewhere.db"),
        "device": lambda: file.symlink_to("/dev/zero"),
    }
    make[kind]()
    with pytest.raises(StoreError, match=f"is a {kind if kind != 'device' else 'link'}|is a named {kind}"):
        search_in(tmp_path)
    assert not (tmp_path / "elsewhere.db").exists()


def test_a_database_that_somebody_holds_is_waited_for_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.2)
    search = search_in(tmp_path)
    with closing(sqlite3.connect(tmp_path / "optuna.db")) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        words = r"must be free to be written; something else has held it for more than 0\.2 s.*optuna-dashboard.*NFS"
        for use in (lambda: search_in(tmp_path), lambda: search.ask("bf16")):
            began = time.monotonic()
            with pytest.raises(StoreError, match=words):
                use()
            assert time.monotonic() - began < 30  # Optuna tries a new trial five times, with pauses of its own
        holder.rollback()
    assert search.ask("bf16") is not None


def test_many_trials_added_at_once_are_what_optuna_adds_one_by_one(tmp_path: Path) -> None:
    """Also behind trials that are there, with their times to the microsecond."""
    ended = [_ended(config, place) for place, config in enumerate(SPACE.grid([3]))]
    searches = {}
    for name in ("ours", "optunas"):
        (tmp_path / name).mkdir()
        searches[name] = search_in(tmp_path / name)
        assert searches[name].ask("bf16") is not None
    searches["ours"]._database.add_all(ended)
    optuna_study(tmp_path / "optunas").add_trials(ended)
    ours, theirs = (optuna_study(tmp_path / name).trials[1:] for name in ("ours", "optunas"))
    assert len(ours) == len(ended)
    assert ours == theirs
    assert len(searches["ours"]._database.trials()) == 1 + len(ended)


def _ended(config: TrialConfig, place: int) -> optuna.trial.FrozenTrial:
    asked = fixed_trial(SPACE, config)
    state = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)[place % 3]
    attributes = asked_attributes(f"x{place}", config) | {"reason": "ü", "values_so_far": [1.5, 2.5]}
    return optuna.trial.create_trial(
        state=state,
        values=[7.25, 1e-300] if state == TrialState.COMPLETE else None,
        params=asked.params,
        distributions=asked.distributions,
        user_attrs=attributes,
    )


def _undominated(values: list[tuple[float, float]]) -> set[int]:
    """By brute force: minimize the first, maximize the second."""
    losses = [(first, -second) for first, second in values]
    return {
        number
        for number, one in enumerate(losses)
        if not any(other != one and other[0] <= one[0] and other[1] <= one[1] for other in losses)
    }
