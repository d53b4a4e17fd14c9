"""Measures what early stopping costs and keeps on recorded curves, over shuffled orders of arrival.

    python -m tests.benchmarks.search.replay_bench tests/benchmarks/results/search/curves_*.json --out /tmp/replay.json

Against full training: the cost (optimizer steps spent, as a share), the share of the hypervolume (reference: the base
model's perplexity, and the largest memory; strict: just beyond the front's own worst values), and how many members of
the front were lost, as median and worst case. Beside it, at equal cost: halving on perplexity alone (ASHA), with the
keep fraction whose median cost is the nearest that is not below; and random search. `--phases` runs one precision after
another, as a study does whose base models do not fit one card together; `--listed` starts with the least learning
rates, as a grid in its own order does.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from study.config.search_sections import DEFAULT_KEEP_FRACTION, DEFAULT_RUNGS, DEFAULT_STRATA, DEFAULT_STRATUM_FRACTION
from study.search.early_stopping import Halving, ParetoHalving, PerplexityHalving
from tests.benchmarks.search.replay import Replay, Table, arrival_order, load_table, random_at_cost, run_replay

MakeHalving = Callable[[Table], Halving]
KEEP_FRACTIONS = [number / 100 for number in (*range(2, 30), *range(30, 100, 5))]


@dataclass(frozen=True)
class Setting:
    """How a bench replays: how often, with how many places, and in which kind of order."""

    orders: int
    places: int
    phases: bool
    listed: bool


@dataclass(frozen=True)
class Summary:
    """Replays of one method on one table: medians, and the worst over the orders."""

    table: str
    method: str
    cost: float
    worst_cost: float
    hypervolume: float
    worst_hypervolume: float
    strict_hypervolume: float
    worst_strict_hypervolume: float
    lost: float
    worst_lost: int
    completed: float

    @classmethod
    def of(cls, table: Table, method: str, replays: Sequence[Replay]) -> Summary:
        """The median and the worst of each number."""
        return cls(
            table=table.name,
            method=method,
            cost=statistics.median(one.cost for one in replays),
            worst_cost=max(one.cost for one in replays),
            hypervolume=statistics.median(one.hypervolume for one in replays),
            worst_hypervolume=min(one.hypervolume for one in replays),
            strict_hypervolume=statistics.median(one.strict_hypervolume for one in replays),
            worst_strict_hypervolume=min(one.strict_hypervolume for one in replays),
            lost=statistics.median(one.lost for one in replays),
            worst_lost=max(one.lost for one in replays),
            completed=statistics.median(one.completed for one in replays),
        )


def replays(table: Table, make: MakeHalving | None, setting: Setting) -> list[Replay]:
    """One replay for each order; a fresh halving each time."""
    found = []
    for seed in range(setting.orders):
        order = arrival_order(table, seed, setting.phases, setting.listed)
        found.append(run_replay(table, order, make(table) if make else None, setting.places, seed))
    return found


def asha_at_cost(table: Table, rungs: Sequence[float], cost: float, setting: Setting) -> tuple[float, list[Replay]]:
    """Plain halving with the keep fraction whose median cost is the least that is not below `cost`."""
    found: list[tuple[float, float, list[Replay]]] = []
    for keep in KEEP_FRACTIONS:
        own = replays(table, lambda of, keep=keep: PerplexityHalving(of.total_steps, rungs, keep), setting)
        found.append((statistics.median(one.cost for one in own), keep, own))
    enough = [one for one in found if one[0] >= cost] or [max(found, key=lambda one: one[0])]
    best = min(enough, key=lambda one: (one[0], one[1]))
    return best[1], best[2]


def compare(table: Table, options: argparse.Namespace) -> list[Summary]:
    """All methods on one table."""
    setting = Setting(options.orders, options.places, options.phases, options.listed)

    def pareto(of: Table) -> Halving:
        more = {"strata": options.strata, "stratum_fraction": options.stratum_fraction}
        return ParetoHalving(of.total_steps, options.rungs, options.keep_fraction, options.grace_steps, **more)

    ours = replays(table, pareto, setting)
    cost = statistics.median(one.cost for one in ours)
    keep, asha = asha_at_cost(table, options.rungs, cost, setting)
    chance = [random_at_cost(table, arrival_order(table, seed), one.cost) for seed, one in enumerate(ours)]
    return [
        Summary.of(table, "full training", replays(table, None, replace(setting, orders=1))),
        Summary.of(table, "pareto halving", ours),
        Summary.of(table, f"perplexity halving, keep {keep:g}", asha),
        Summary.of(table, "random", chance),
    ]


def lines(table: Table, summaries: Sequence[Summary]) -> list[str]:
    """The table for people; in brackets the worst of the orders."""
    head = f"{table.name}: {len(table.curves)} configurations, {len(table.front)} on the front"
    title = f"{'method':<32}{'cost':>15}{'hypervolume':>18}{'strict':>18}{'front lost':>13}{'completed':>11}"
    rows = [
        f"{one.method:<32}{one.cost:>7.3f} ({one.worst_cost:.3f}){one.hypervolume:>9.4f} ({one.worst_hypervolume:.4f})"
        f"{one.strict_hypervolume:>9.4f} ({one.worst_strict_hypervolume:.4f}){one.lost:>9g} ({one.worst_lost})"
        f"{one.completed:>10g}"
        for one in summaries
    ]
    return [head, title, *rows, ""]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table for each recording; `--out` also writes all as JSON."""
    options = _parser().parse_args(arguments)
    everything: list[dict[str, Any]] = []
    for file in options.tables:
        table = load_table(file)
        summaries = compare(table, options)
        print("\n".join(lines(table, summaries)), flush=True)
        everything += [asdict(one) for one in summaries]
    if options.out:
        settings = {name: value for name, value in vars(options).items() if name not in ("tables", "out")}
        options.out.write_text(json.dumps({"settings": settings, "summaries": everything}, indent=1) + "\n", "utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs="+", metavar="CURVES.json")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--orders", type=int, default=20)
    parser.add_argument("--places", type=int, default=8, help="trials that train at the same time")
    parser.add_argument("--phases", action="store_true", help="one precision after another")
    parser.add_argument("--listed", action="store_true", help="the least learning rates first, as a grid lists them")
    parser.add_argument("--rungs", type=float, nargs="+", default=DEFAULT_RUNGS)
    parser.add_argument("--keep-fraction", type=float, default=DEFAULT_KEEP_FRACTION)
    parser.add_argument("--grace-steps", type=int, default=0)
    parser.add_argument("--strata", type=int, default=DEFAULT_STRATA)
    parser.add_argument("--stratum-fraction", type=float, default=DEFAULT_STRATUM_FRACTION)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
