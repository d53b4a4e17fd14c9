"""The Bayesian search: its expectations against brute force, and what it proposes and leaves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from analysis.pareto import hypervolume
from search_spaces.parameters import parse_space
from search_spaces.trial_config import TrialConfig
from study.search.candidates import features
from study.search.known_cost import (
    MOST_TOLD,
    KnownCost,
    expected_hypervolume,
    expected_improvement,
    measured_first,
    observed,
    propose,
    staircase,
    telling,
)
from study.search.sampling import Sampling

SPACE = parse_space(
    {
        "precision": {"choice": ["bf16", "nf4"]},
        "rank": {"choice": [4, 8, 16, 32]},
        "target_modules": {"choice": ["q_v", "all_linear"]},
        "lora_alpha": {"rank_times": 2},
        "lora_dropout": 0.0,
        "learning_rate": {"log_float": [1e-5, 1e-2]},
    }
)
LISTED = parse_space({**SPACE.to_mapping(), "learning_rate": {"choice": [1e-4, 1e-3]}})


def memory_of(config: TrialConfig) -> float:
    return (100.0 if config.precision == "nf4" else 200.0) + config.rank * len(config.target_modules)


def quality_of(config: TrialConfig) -> float:
    """Best at a learning rate of 1e-3; rank and modules help."""
    return 10 - math.log2(config.rank * len(config.target_modules)) / 2 + math.log10(config.learning_rate / 1e-3) ** 2


KNOWN = KnownCost(0, 1, (14.0, 500.0), True, memory_of)


def ended(config: TrialConfig, state: TrialState = TrialState.COMPLETE, **attributes: Any) -> FrozenTrial:
    values = [quality_of(config), memory_of(config)] if state == TrialState.COMPLETE else None
    return optuna.trial.create_trial(state=state, values=values, user_attrs={"config": config.to_dict(), **attributes})


def configured(rank: int = 8, rate: float = 1e-4, precision: str = "nf4", modules: str = "q_v") -> TrialConfig:
    values = {"rank": rank, "lora_alpha": 2 * rank, "lora_dropout": 0.0, "learning_rate": rate, "seed": 0}
    return TrialConfig.from_dict({**values, "precision": precision, "target_modules": modules})


@pytest.mark.parametrize("logarithmic", [False, True])
def test_expected_hypervolume_is_the_mean_of_many_draws(logarithmic: bool) -> None:
    """Tolerance: five standard errors of 4,000 draws."""
    reference, done = (1.2, 4.0), [(0.8, 1.0), (0.5, 3.0), (0.9, 2.0), (0.1, 5.0), (1.3, 0.5)]
    draws = np.random.default_rng(0).normal(-0.3, 0.5, 4000)
    draws = np.exp(draws) if logarithmic else draws
    before = hypervolume(done, reference)
    for memory in (0.5, 1.0, 2.5, 3.5, 4.5):
        found = expected_hypervolume(
            np.array([-0.3]), np.array([0.5]), np.array([memory]), staircase(done, reference), 4.0, logarithmic
        )
        gains = [hypervolume([*done, (float(one), memory)], reference) - before for one in draws]
        assert found[0] == pytest.approx(np.mean(gains), abs=5 * np.std(gains) / math.sqrt(len(gains)) + 1e-12)


def test_expected_improvement_has_its_limits() -> None:
    sure, mean = np.array([1e-9]), np.array([math.log(2.0)])
    assert expected_improvement(mean, sure, 3.0, True) == pytest.approx([1.0])
    assert expected_improvement(mean, sure, 1.0, True) == pytest.approx([0.0])
    assert expected_improvement(np.array([2.0]), sure, 3.0, False) == pytest.approx([1.0])
    assert expected_improvement(np.array([0.0]), np.array([1.0]), 0.0, False) == pytest.approx([0.398942], rel=1e-5)


def test_the_staircase_is_the_front_within_the_reference() -> None:
    assert staircase([], (9.0, 5.0)) == [(-math.inf, 9.0)]
    points = [(8.0, 1.0), (8.0, 2.0), (6.0, 3.0), (7.0, 4.0), (1.0, 5.0), (9.5, 0.5)]
    assert staircase(points, (9.0, 5.0)) == [(-math.inf, 9.0), (1.0, 8.0), (3.0, 6.0)]


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


def test_measured_memory_comes_before_predictions_and_moves_them() -> None:
    known = KnownCost(0, 1, (14.0, 500.0), True, lambda config: memory_of(config) - 10)
    found = measured_first([ended(configured(4))], known)
    assert found(configured(4, rate=1e-3)) == memory_of(configured(4))  # of its footprint
    assert found(configured(8)) == memory_of(configured(8))  # predicted, moved by what predictions were off
    assert found(configured(8, precision="bf16")) == memory_of(configured(8, precision="bf16")) - 10


def test_features_lie_between_0_and_1_and_tell_configurations_apart() -> None:
    every = LISTED.grid([0])
    table = features(LISTED, every)
    assert table.shape == (len(every), 4)
    assert (table.min(), table.max()) == (0.0, 1.0)
    assert len(np.unique(table, axis=0)) == len(every)
    assert features(LISTED, []).shape == (0, 4)


def searched(seed: int, trials: int, space: Any = SPACE, **changes: Any) -> list[TrialConfig]:
    """A search that is told at once what it asked for."""
    known = KnownCost(**{**vars(KNOWN), **changes})
    history: list[FrozenTrial] = []
    found: list[TrialConfig] = []
    for number in range(trials):
        precision = ("bf16", "nf4")[number % 2]
        config = propose(space, precision, known, trials, 1000 * seed + number, history, found, 0)
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
        sampling = Sampling(SPACE, "random", 16, seed, 0, ("minimize", "minimize"))
        chance.append(covered([sampling.propose(("bf16", "nf4")[n % 2], n, [], [])[1] for n in range(16)]) / best)
    assert np.median(ours) > np.median(chance)
    assert min(ours) > 0.97


MODULES = ("q_v", "all_linear")


def test_proposals_depend_on_their_arguments_alone_and_none_comes_twice() -> None:
    assert searched(1, 8) == searched(1, 8)
    assert searched(1, 8) != searched(2, 8)
    found = searched(0, 99, LISTED)
    assert len(found) == len(set(found)) == len(LISTED.grid([0]))


def test_what_cannot_fit_is_left_until_nothing_else_is() -> None:
    found = searched(0, 99, LISTED, limit=200.0)
    fits = [memory_of(one) < 200 for one in found if one.precision == "nf4"]
    assert fits == sorted(fits, reverse=True)
    history = [ended(configured(8, modules="all_linear"), TrialState.FAIL, status="infeasible")]
    chosen = [propose(LISTED, "nf4", KNOWN, 9, seed, history, [], 0) for seed in range(20)]
    assert all(one is not None and memory_of(one) < memory_of(configured(8, modules="all_linear")) for one in chosen)
