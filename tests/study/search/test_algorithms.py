"""Proposals as a function of the trials so far: repeatable, distinct, and none when nothing is left."""

from __future__ import annotations

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState

from search_spaces.parameters import SearchSpace, parse_space
from search_spaces.trial_config import TrialConfig
from study.config.search_sections import SearchSettings
from study.search.algorithms import Sampling, constrained, fixed_trial, sampler, seed_of
from study.search.candidates import all_configurations
from tests.support.search.small_spaces import SMALL, WIDE

SEARCHERS = ("random", "tpe", "nsga2")


def sampling(space: SearchSpace = WIDE, algorithm: str = "tpe", trials: int = 30, seed: int = 0) -> Sampling:
    return Sampling(space, SearchSettings(algorithm, trials, seed), 5, ("minimize", "minimize"))


def values_of(config: TrialConfig) -> tuple[float, float]:
    """Quality and cost that pull apart: as a stand-in for a training run."""
    perplexity = 10 - config.rank + abs(config.learning_rate - 2e-4) * 1e4 + config.lora_dropout
    return perplexity, config.rank * len(config.target_modules) + (config.precision == "bf16") * 5


def run(searcher: Sampling, count: int, pending: int = 1, precision: str = "nf4") -> list[TrialConfig]:
    """`count` proposals; while `pending` of them run, the oldest ends before the next."""
    history: list[FrozenTrial] = []
    asked: list[TrialConfig] = []
    for number in range(count):
        proposed = searcher.propose(precision, number, history, set(asked))
        if proposed is None:
            break
        trial, config = proposed
        history.append(trial)
        asked.append(config)
        if number >= pending - 1:
            told = number - pending + 1
            history[told] = ended(history[told], asked[told])
    return asked


def ended(trial: FrozenTrial, config: TrialConfig) -> FrozenTrial:
    return optuna.trial.create_trial(
        values=values_of(config),
        params=trial.params,
        distributions=trial.distributions,
        system_attrs=trial.system_attrs,
    )


def infeasible(trial: FrozenTrial, tell: bool) -> FrozenTrial:
    return optuna.trial.create_trial(
        state=TrialState.FAIL,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={"status": "infeasible" if tell else "failed"},
        system_attrs=trial.system_attrs,
    )


@pytest.mark.parametrize("algorithm", ["tpe", "nsga2"])
def test_searchers_keep_away_from_what_did_not_fit(algorithm: str) -> None:
    """Of ranks to 64 those over 24 do not fit, and the greater a rank, the better its trial would be."""
    space = parse_space({**WIDE.to_mapping(), "rank": {"int": [2, 64]}})
    searcher = sampling(space, algorithm, trials=60)
    counts = []
    for tell in (True, False):
        history: list[FrozenTrial] = []
        for number in range(60):
            proposed = searcher.propose("nf4", number, history, ())
            assert proposed is not None
            trial, config = proposed
            history.append(infeasible(trial, tell) if config.rank > 24 else ended(trial, config))
        counts.append(sum(trial.state == TrialState.FAIL for trial in history[30:]))
    assert counts[0] < counts[1]
    assert counts[0] < 30 * 40 / 63  # chance's share


def test_seeds_differ_between_trials_and_studies() -> None:
    seeds = [seed_of(seed, number) for seed in range(40) for number in range(40)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize("algorithm", SEARCHERS)
def test_a_proposal_depends_on_its_arguments_alone(algorithm: str) -> None:
    first = run(sampling(algorithm=algorithm), 16, pending=2)
    assert run(sampling(algorithm=algorithm), 16, pending=2) == first
    assert run(sampling(algorithm=algorithm, seed=1), 16, pending=2) != first
    alone = [sampling(algorithm=algorithm).propose("nf4", number, [], set()) for number in range(4)]
    assert len({config for _, config in alone}) == 4


@pytest.mark.parametrize("algorithm", SEARCHERS)
def test_proposals_keep_to_their_precision_and_the_study_s_space(algorithm: str) -> None:
    searcher = sampling(algorithm=algorithm, trials=12)
    history, asked = [], []
    for number in range(12):
        precision = ("bf16", "nf4")[number % 2]
        trial, config = searcher.propose(precision, number, history, set(asked)) or (None, None)
        assert config.precision == trial.params["precision"] == precision
        assert config.seed == 5
        assert trial.distributions["precision"].choices == ("bf16", "nf4")
        assert ("lora_dropout" in trial.params) == (precision == "nf4")
        assert trial.state == TrialState.RUNNING
        assert TrialConfig.from_dict({**config.to_dict(), **trial.params}) == config
        history.append(ended(trial, config))
        asked.append(config)


@pytest.mark.parametrize("algorithm", SEARCHERS)
@pytest.mark.parametrize("pending", [1, 3])
def test_nothing_is_proposed_twice_and_a_finite_space_is_used_up(algorithm: str, pending: int) -> None:
    asked = run(sampling(SMALL, algorithm), 40, pending)
    assert len(asked) == 12
    assert set(asked) == set(all_configurations(SMALL.with_precision("nf4"), 5) or ())


@pytest.mark.parametrize("algorithm", SEARCHERS)
def test_a_space_of_one_configuration(algorithm: str) -> None:
    single = {name: fixed for name, fixed in SMALL.to_mapping().items() if name not in ("rank", "target_modules")}
    space = parse_space({**single, "precision": "bf16", "rank": 2, "target_modules": "q_v", "lora_dropout": 0.05})
    assert run(sampling(space, algorithm), 3, precision="bf16") == space.grid([5])


def test_random_does_not_look_at_results_and_the_others_do() -> None:
    """Trials that got the opposite values lead to other proposals, once the first ones by chance are over."""
    differ = {}
    for algorithm in SEARCHERS:
        searcher = sampling(algorithm=algorithm, trials=18)
        asked = run(searcher, 12)
        history = [fixed_trial(WIDE, config) for config in asked]
        for trial, config in zip(history, asked, strict=True):
            trial.state, trial.values, trial.datetime_complete = (
                TrialState.COMPLETE,
                values_of(config),
                trial.datetime_start,
            )
            trial.system_attrs = {"NSGAIISampler:generation": 0}
        as_told = [searcher.propose("nf4", number, history, set())[1] for number in range(12, 18)]
        for trial in history:
            trial.values = [-value for value in trial.values]
        opposite = [searcher.propose("nf4", number, history, set())[1] for number in range(12, 18)]
        differ[algorithm] = as_told != opposite
    assert differ == {"random": False, "tpe": True, "nsga2": True}


def test_nsga2_breeds_within_the_trials_it_has() -> None:
    searcher = sampling(algorithm="nsga2", trials=12)
    history: list[FrozenTrial] = []
    for number in range(12):
        trial, config = searcher.propose("nf4", number, history, set()) or (None, None)
        history.append(ended(trial, config))
    generations = [trial.system_attrs["NSGAIISampler:generation"] for trial in history]
    assert generations == [0] * 4 + [1] * 4 + [2] * 4


def test_nsga2_breeds_from_what_it_did_not_draw_itself() -> None:
    """Trials of earlier studies, and points to try first: a whole generation of them, and its own are the next."""
    searcher = sampling(algorithm="nsga2", trials=12)
    known = [ended(fixed_trial(WIDE, config), config) for config in run(sampling(algorithm="random"), 8)]
    trial, config = searcher.propose("nf4", 8, known, set()) or (None, None)
    assert trial.system_attrs["NSGAIISampler:generation"] == 1
    by_chance = searcher.propose("nf4", 8, [], set())
    assert by_chance is not None
    assert config != by_chance[1]


def test_the_gaussian_process_of_other_objectives_continues_after_its_start() -> None:
    """Where no cost is known before a trial: Optuna's own process; it moves to where the front is."""
    searcher = sampling(algorithm="gp", trials=9)
    asked = run(searcher, 6)
    assert len(set(asked)) == 6
    assert asked == run(searcher, 6)


def test_what_did_not_fit_is_as_bad_as_the_worst_that_did() -> None:
    configs = run(sampling(algorithm="random"), 4)
    done = [ended(fixed_trial(WIDE, config), config) for config in configs[:3]]
    told = constrained([*done, infeasible(fixed_trial(WIDE, configs[3]), tell=True)], ("minimize", "maximize"))
    first, second = zip(*map(values_of, configs[:3]), strict=True)
    assert told[3].values == [max(first), min(second)]
    assert [trial.system_attrs["constraints:fits"] for trial in told] == [0.0, 0.0, 0.0, 1.0]
    alone = constrained([infeasible(fixed_trial(WIDE, configs[3]), tell=True)], ("minimize", "maximize"))
    assert alone[0].values == [0.0, 0.0]
    assert constrained(done, ("minimize", "maximize")) is done


@pytest.mark.parametrize(("trials", "population"), [(1, 4), (12, 4), (15, 5), (64, 21), (150, 50), (1000, 50)])
def test_nsga2_s_population_fits_the_number_of_trials(trials: int, population: int) -> None:
    assert sampler("nsga2", 0, trials).population_size == population


def test_pending_trials_count_as_bad_ones_for_tpe() -> None:
    """The constant liar: what TPE would propose again it does not propose while that is being tried."""
    searcher = sampling(trials=18)
    history = [ended(fixed_trial(WIDE, config), config) for config in run(sampling(algorithm="random"), 12)]
    trial, first = searcher.propose("nf4", 12, history, set()) or (None, None)
    assert (searcher.propose("nf4", 12, [*history, trial], set()) or (None, None))[1] != first


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(SMALL.grid([0, 1])))
def test_a_fixed_trial_is_its_configuration(config: TrialConfig) -> None:
    trial = fixed_trial(SMALL, config)
    assert TrialConfig.from_dict({**config.to_dict(), **trial.params}) == config
    assert trial.distributions["precision"].choices == ("bf16", "nf4")
    assert ("lora_dropout" in trial.params) == (config.precision == "nf4")


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(ValueError, match="algorithm must be random, tpe, nsga2 or gp; it is 'grid'"):
        sampler("grid", 0, 8)
