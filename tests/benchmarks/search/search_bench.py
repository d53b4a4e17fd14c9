"""Measures how much of the front a searcher finds in few trials, on recorded results.

    python -m tests.benchmarks.search.search_bench tests/benchmarks/results/search/curves_*.json --trials 24

A searcher that proposes a configuration gets the nearest recorded one of its precision that it has not had yet, with
that one's parameters and results. Printed is the hypervolume after `--trials`, as a share of the whole
table's, over `--seeds` seeds: median and worst.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna

from search_spaces.parameters import SearchSpace, parse_space
from search_spaces.trial_config import TrialConfig
from study.config.search_sections import SearchAlgorithm, SearchSettings
from study.search.algorithms import Sampling, distribution
from study.search.known_cost import KnownCost
from study.search.planned_trials import shares
from tests.benchmarks.search.replay import Curve, Table, load_table

OTHER_MODULES = 4.0  # as far as four doublings of the rank
DECADE = 4.0  # of the learning rate, likewise


def space_of(table: Table) -> SearchSpace:
    """The space that the table's configurations were drawn from."""
    configs = [TrialConfig.from_dict(curve.config) for curve in table.curves]
    rates = [config.learning_rate for config in configs]
    return parse_space(
        {
            "precision": {"choice": sorted({config.precision for config in configs})},
            "rank": {"choice": sorted({config.rank for config in configs})},
            "target_modules": {"choice": sorted({config.target_set for config in configs})},
            "lora_alpha": {"rank_times": 2},
            "lora_dropout": 0.0,
            "learning_rate": {"log_float": [min(rates), max(rates)]},
        }
    )


def search(table: Table, algorithm: SearchAlgorithm, trials: int, seed: int) -> list[str]:
    """The recorded trials that a searcher finds, precision after precision, as a study deals them out."""
    space = space_of(table)
    known = KnownCost(0, 1, table.reference, True, memory_of(table))
    sampling = Sampling(space, SearchSettings(algorithm, trials, seed), 0, ("minimize", "minimize"), known)
    history: list[optuna.trial.FrozenTrial] = []
    found: list[Curve] = []
    room = [sum(curve.config["precision"] == precision for curve in table.curves) for precision in space.precisions()]
    for precision, share in zip(space.precisions(), shares(trials, room), strict=True):
        for _ in range(share):
            proposed = sampling.propose(precision, len(found), history, set())
            if proposed is None:
                break
            curve = nearest(proposed[1], [one for one in table.curves if one not in found])
            found.append(curve)
            history.append(told(space, curve))
    return [curve.trial_id for curve in found]


def memory_of(table: Table) -> Callable[[TrialConfig], float]:
    """The memory of a configuration, from the recorded ones of its footprint: the Bayesian search knows it before."""
    known = {_footprint(TrialConfig.from_dict(curve.config)): curve.memory for curve in table.curves}
    most = max(known.values())
    return lambda config: known.get(_footprint(config), most)


def _footprint(config: TrialConfig) -> tuple[str, int, str]:
    return config.precision, config.rank, config.target_set


def nearest(config: TrialConfig, curves: Sequence[Curve]) -> Curve:
    """The recorded configuration of the same precision that is nearest, the first of equals."""
    return min(
        (one for one in curves if one.config["precision"] == config.precision), key=lambda one: _far(config, one)
    )


def told(space: SearchSpace, curve: Curve) -> optuna.trial.FrozenTrial:
    """A recorded trial as Optuna keeps it; one that did not finish has failed."""
    parameters = space.grid_parameters(TrialConfig.from_dict(curve.config))
    kinds = {name: distribution(space[name]) for name in parameters}
    attributes = {"config": curve.config, "status": "complete" if curve.complete else "diverged"}
    ended: dict[str, Any] = {"params": parameters, "distributions": kinds, "user_attrs": attributes}
    if curve.complete:
        return optuna.trial.create_trial(values=curve.final, **ended)
    return optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL, **ended)


def _far(config: TrialConfig, curve: Curve) -> float:
    other = TrialConfig.from_dict(curve.config)
    ranks = abs(math.log2(config.rank / other.rank))
    rates = DECADE * abs(math.log10(config.learning_rate / other.learning_rate))
    return ranks + rates + (OTHER_MODULES if config.target_set != other.target_set else 0.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a line for each table and searcher; `--out` also writes them as JSON."""
    options = _parser().parse_args(arguments)
    found = []
    for table in map(load_table, options.tables):
        for algorithm in options.algorithms:
            volumes = [
                table.hypervolume_share(search(table, algorithm, options.trials, seed)) for seed in range(options.seeds)
            ]
            one = {"table": table.name, "algorithm": algorithm, "trials": options.trials, "hypervolumes": volumes}
            found.append(one)
            middle, worst = statistics.median(volumes), min(volumes)
            print(f"{table.name:<36}{algorithm:<10}{middle:>8.4f} (worst {worst:.4f})", flush=True)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs="+", metavar="CURVES.json")
    parser.add_argument("--algorithms", nargs="+", default=("random", "tpe", "nsga2", "gp"))
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
