"""What is searched: algorithms, trials, seeds, beginnings, early stopping, confirmation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from study.config.study_config import (
    EarlyStoppingSettings,
    SearchSettings,
)
from tests.support.study_files import SPACE, load_changed, read_again
from trainables.settings import (
    RungSettings,
)

DROPOUTS = [round(0.01 * step, 2) for step in range(50)]


def test_what_a_search_begins_with(tmp_path: Path) -> None:
    point = {"precision": "nf4", "rank": 8, "target_modules": ["v_proj", "q_proj"]}
    search = {"algorithm": "tpe", "trials": 4, "seed": 0, "try_first": [point], "warm_start": ["earlier", "/a/b"]}
    config = load_changed(tmp_path, search=search, seeds=[5])
    (first,) = config.search.try_first
    assert (first.precision, first.rank, first.lora_alpha, first.target_set, first.seed) == ("nf4", 8, 16, "q_v", 5)
    assert config.search.warm_start == (str(tmp_path / "earlier"), "/a/b")
    assert read_again(config, tmp_path) == config


def test_confirm_trains_with_seeds_that_are_new(tmp_path: Path) -> None:
    search = {"algorithm": "tpe", "trials": 4}
    assert load_changed(tmp_path).confirm.seeds == (101, 102, 103)
    assert load_changed(tmp_path, seeds=[0, 1]).confirm.seeds == (101, 102, 103)  # a grid has trained with both
    config = load_changed(tmp_path, seeds=[0, 1, 2], search=search)
    assert config.confirm.seeds == (1, 2)  # a search with the first
    assert read_again(config, tmp_path) == config
    assert load_changed(tmp_path, confirm={"seeds": [5]}).confirm.seeds == (5,)


def test_early_stopping(tmp_path: Path) -> None:
    values = {
        "algorithm": "asha", "rungs": [0.25, 0.5], "keep_fraction": 1, "grace_steps": 3, "strata": 2,
        "stratum_fraction": 0.5,
    }  # fmt: skip
    config = load_changed(tmp_path, early_stopping=values)
    assert config.early_stopping == EarlyStoppingSettings("asha", (0.25, 0.5), 1.0, 3, 2, 0.5)
    assert set(values) == {field.name for field in dataclasses.fields(EarlyStoppingSettings)}
    assert config.trial.rungs == RungSettings((0.25, 0.5), 3)
    assert config.trial.rungs.steps(10) == (3, 5)
    assert read_again(config, tmp_path) == config
    assert load_changed(tmp_path, early_stopping={**values, "algorithm": "none"}).trial.rungs == RungSettings()


def test_a_grid_has_as_many_trials_as_configurations(tmp_path: Path) -> None:
    assert load_changed(tmp_path, seeds=[3, 1], search={"seed": 5}).search == SearchSettings("grid", 8, 5)
    assert load_changed(tmp_path, search={"trials": 100}).search.trials == 8
    assert load_changed(tmp_path, search={"trials": None}).search.trials == 8


def test_a_grids_conditions_make_fewer_configurations_than_combinations(tmp_path: Path) -> None:
    space = {**SPACE, "lora_dropout": {"choice": [0.1, 0.2], "when": {"precision": "nf4"}, "otherwise": 0.0}}
    assert load_changed(tmp_path, space=space, search={"trials": 12}).search.trials == 12


@pytest.mark.parametrize("algorithm", ["random", "tpe", "nsga2"])
def test_a_searcher_takes_its_trials(tmp_path: Path, algorithm: str) -> None:
    search = {"algorithm": algorithm, "trials": 3, "seed": 1}
    space = {**SPACE, "lora_alpha": {"choice": list(range(1, 101))}, "lora_dropout": {"choice": DROPOUTS}}
    config = load_changed(tmp_path, search=search, space=space, seeds=[7, 8])
    assert (config.search, config.seeds) == (SearchSettings(algorithm, 3, 1), (7, 8))  # type: ignore[arg-type]


def test_a_grid_of_exactly_10000_trials_is_allowed(tmp_path: Path) -> None:
    one = {**SPACE, "precision": "nf4", "rank": 8, "target_modules": "q_v"}
    space = {**one, "lora_alpha": {"choice": list(range(1, 101))}, "lora_dropout": {"choice": DROPOUTS}}
    assert load_changed(tmp_path, space=space, seeds=[0, 1]).search.trials == 5000
