"""The Bayesian search: what it learns from, proposes, and leaves out."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from analysis.pareto import hypervolume
from search_spaces.trial_config import TrialConfig
from study.checkout import CHECKOUT
from study.config.search_sections import SearchSettings
from study.search.algorithms import Sampling, gp_startup_trials
from study.search.bayesian import MOST_TOLD, BayesianSearch, observed, telling
from tests.support.search.known_costs import KNOWN, LISTED, SPACE, configured, ended, memory_of, quality_of

MODULES = ("q_v", "all_linear")


def test_ends_are_what_the_process_learns_from() -> None:
    done, other, third = configured(4), configured(8), configured(16)
    history = [
        ended(done),
        ended(other, TrialState.PRUNED, status="stopped", values_so_far=[99.0, 1.0]),
        ended(other, TrialState.PRUNED, status="stopped", values_so_far=[5.0, 1.0]),
        ended(other, TrialState.PRUNED, status="stopped"),
        ended(third, TrialState.FAIL, status="diverged"),
        ended(third, TrialState.FAIL, status="failed"),
        ended(third, TrialState.RUNNING),
    ]
    seen, worst = observed(history, KNOWN), quality_of(done)
    assert seen.configs == (done, other, other, third)
    assert seen.quality == (worst, worst, 5.0, worst)
    assert seen.complete == (True, False, False, False)
    assert seen.running == (third,)
    assert observed(history[1:2], KNOWN).quality == (99.0,)  # nothing complete to compare with


def test_of_very_many_trials_the_best_are_told_and_others_of_every_quality() -> None:
    few, many = np.random.default_rng(0).random(MOST_TOLD), np.random.default_rng(1).random(4 * MOST_TOLD)
    assert telling(few).tolist() == list(range(MOST_TOLD))
    told = telling(many)
    assert len(told) == len(set(told)) == MOST_TOLD
    assert told.tolist() == sorted(told)
    best = np.sort(many)[: MOST_TOLD // 2]
    assert set(best) <= set(many[told])
    assert many.max() in many[told]
    others = np.sort(np.setdiff1d(many[told], best))
    assert np.diff(others).max() < 0.02  # 256 of the 1,792 others, spread over 0.125 to 1


def searched(seed: int, trials: int, space: Any = SPACE, **changes: Any) -> list[TrialConfig]:
    """A search that is told at once what it asked for."""
    search = BayesianSearch(space, replace(KNOWN, **changes), gp_startup_trials(trials), 0)
    history: list[FrozenTrial] = []
    found: list[TrialConfig] = []
    for number in range(trials):
        precision = ("bf16", "nf4")[number % 2]
        config = search.propose(precision, 1000 * seed + number, history, found)
        if config is None:
            break
        assert config.precision == precision
        found.append(config)
        history.append(ended(config))
    return found


def covered(configs: list[TrialConfig]) -> float:
    return float(hypervolume([(quality_of(one), memory_of(one)) for one in configs], KNOWN.reference))


def test_it_finds_more_than_chance_does() -> None:
    """Over three seeds, in sixteen trials; the best that there is counts as 1."""
    best = covered([configured(rank, 1e-3, p, m) for rank in (4, 8, 16, 32) for p in ("nf4", "bf16") for m in MODULES])
    ours = [covered(searched(seed, 16)) / best for seed in range(3)]
    chance = []
    for seed in range(3):
        sampling = Sampling(SPACE, SearchSettings("random", 16, seed), 0, ("minimize", "minimize"))
        chance.append(covered([sampling.propose(("bf16", "nf4")[n % 2], n, [], [])[1] for n in range(16)]) / best)
    assert np.median(ours) > np.median(chance)
    assert min(ours) > 0.97


def test_proposals_depend_on_their_arguments_alone_and_none_is_repeated() -> None:
    assert searched(1, 8) == searched(1, 8)
    assert searched(1, 8) != searched(2, 8)
    found = searched(0, 99, LISTED)
    assert len(found) == len(set(found)) == len(LISTED.grid([0]))


def test_what_cannot_fit_is_left_until_nothing_else_is() -> None:
    found = searched(0, 99, LISTED, limit_bytes=200.0)
    fits = [memory_of(one) < 200 for one in found if one.precision == "nf4"]
    assert fits == sorted(fits, reverse=True)
    history = [ended(configured(8, modules="all_linear"), TrialState.FAIL, status="infeasible")]
    search = BayesianSearch(LISTED, KNOWN, gp_startup_trials(9), 0)
    chosen = [search.propose("nf4", seed, history, []) for seed in range(20)]
    assert all(one is not None and memory_of(one) < memory_of(configured(8, modules="all_linear")) for one in chosen)


def test_a_study_without_a_gaussian_process_does_not_import_scipy() -> None:
    code = "import sys, study.search.study_search; print([name for name in sys.modules if name.startswith('scipy')])"
    found = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
