"""Trials that something else has added to the database, or changed: left out, and said why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from study.search.trial_attributes import asked_attributes, earlier_attributes, parted
from tests.support.search.searches import SPACE, ask_all, optuna_study, search_in, values_of

CONFIG = SPACE.grid([3])[0]
GOOD = asked_attributes("t000", CONFIG)


def trial(attributes: dict[str, Any], number: int = 0, values: list[float] | None = None) -> optuna.trial.FrozenTrial:
    found = create_trial(
        state=TrialState.COMPLETE if values else TrialState.RUNNING, values=values, user_attrs=attributes
    )
    found.number = number
    return found


def test_what_the_search_asked_for_and_what_it_knew_before_is_its_own() -> None:
    trials = [trial(GOOD), trial(earlier_attributes("runs/a/t3", CONFIG), 1), trial(GOOD | {"trial_id": "t001"}, 2)]
    assert parted(trials, 2) == (trials, {})


@pytest.mark.parametrize(
    ("attributes", "values", "reason"),
    [
        ({}, None, "this study's search did not ask for it"),
        ({"trial_id": "t001"}, None, "it has no configuration"),
        (GOOD | {"trial_id": 3}, None, "trial_id must be text with at least one character; it is 3"),
        (GOOD | {"trial_id": None}, None, "trial_id must be text"),
        (GOOD | {"config": None}, None, "its configuration cannot be one"),
        (GOOD | {"config": "nf4"}, None, "its configuration cannot be one"),
        (GOOD | {"config": {"rank": 8}}, None, "its configuration cannot be one: 'target_modules'"),
        (GOOD | {"config": {**CONFIG.to_dict(), "rank": 0}}, None, "rank must be an integer from 1"),
        (GOOD | {"values_so_far": "much"}, None, "values_so_far must be a list"),
        (GOOD | {"values_so_far": [1.0]}, None, "it must have 2 values"),
        (GOOD | {"train_steps": "9"}, None, "train_steps must be a finite number"),
        (GOOD, [1.0, 2.0, 3.0], "it must have 2 values"),
        (GOOD, [1.0, float("inf")], "its values must be finite"),
        (GOOD, None, "t000 is there twice"),
    ],
)
def test_a_trial_that_is_none_of_ours_is_left_out(
    attributes: dict[str, Any], values: list[float] | None, reason: str
) -> None:
    first = trial(GOOD)
    own, foreign = parted([first, trial(attributes, 1, values)], 2)
    assert own == [first]
    assert list(foreign) == [1]
    assert reason in foreign[1]


@pytest.mark.parametrize("algorithm", ["grid", "tpe", "nsga2"])
def test_a_search_continues_beside_foreign_trials(tmp_path: Path, algorithm: str) -> None:
    """What it proposes next is what it would have proposed without them."""
    (tmp_path / "alone").mkdir()
    (tmp_path / "beside").mkdir()
    proposed = []
    for folder in (tmp_path / "alone", tmp_path / "beside"):
        first = search_in(folder, algorithm).ask("bf16")
        assert first is not None
        if folder.name == "beside":
            study = optuna_study(folder)
            study.add_trial(create_trial(values=[1.0, 2.0]))
            study.ask().set_user_attr("config", {"rank": "no"})
        search = search_in(folder, algorithm)
        assert len(search.foreign) == (2 if folder.name == "beside" else 0)
        search.tell(first.trial_id, "complete", values_of(first.config))
        proposed.append(ask_all(search, "bf16", "nf4"))
        assert search.proposals() == [first, *proposed[-1]]
    assert proposed[0] == proposed[1]
