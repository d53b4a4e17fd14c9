"""The replay bench on tables whose outcome can be counted by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from study.search.early_stopping import ParetoHalving, Verdict
from tests.benchmarks.search.record_curves import RANKS, configurations, write_table
from tests.benchmarks.search.replay import Table, arrival_order, load_table, random_at_cost, run_replay
from tests.benchmarks.search.replay_bench import main as replay_bench
from tests.benchmarks.search.search_bench import search

STEPS = (2, 4, 6, 8)


def entry(number: int, final: float, memory: float, **changes: Any) -> dict[str, Any]:
    """A curve that comes down to its final perplexity at the same pace as all others."""
    config = configurations(8, ("bf16", "nf4"), (1e-4, 1e-3), 0)[number].to_dict()
    curve = [[step, final + (8 - step)] for step in STEPS]
    values = {"trial_id": f"t{number}", "config": config, "status": "complete", "memory_bytes": memory}
    return {**values, "base_perplexity": 40.0, "curve": curve, **changes}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Eight curves: three on the front, four dominated, and one that diverged at once."""
    finals = [(20.0, 1.0), (15.0, 2.0), (10.0, 4.0), (21.0, 3.0), (22.0, 5.0), (23.0, 6.0), (24.0, 7.0)]
    curves = [entry(number, *values) for number, values in enumerate(finals)]
    curves.append(entry(7, 9.0, 0.5, status="diverged", curve=[[2, 1e9]]))
    write_table({"about": {"total_steps": 8}, "curves": curves}, tmp_path / "curves_hand.json")
    return tmp_path / "curves_hand.json"


@pytest.fixture
def table(file: Path) -> Table:
    """The table of that file."""
    return load_table(file)


def test_front_reference_and_hypervolume_are_those_of_full_training(table: Table) -> None:
    assert table.front == {"t0", "t1", "t2"}
    assert table.reference == pytest.approx((40.0, 7.7))
    assert table.strict_reference == pytest.approx((22.0, 4.4))
    # Strips of memory: 1 to 2 at 22 - 20, 2 to 4 at 22 - 15, 4 to 4.4 at 22 - 10.
    whole = 1 * 2 + 2 * 7 + 0.4 * 12
    strict = table.strict_reference
    assert table.hypervolume_share(["t0", "t1", "t2"], strict) == pytest.approx(1.0)
    assert table.hypervolume_share(["t1"], strict) == pytest.approx(2.4 * 7 / whole)
    assert table.hypervolume_share(["t1"]) == pytest.approx(5.7 * 25 / (1 * 20 + 2 * 25 + 3.7 * 30))
    assert table.hypervolume_share([]) == 0.0
    assert math.isinf(table.curves[7].final[0])


@pytest.mark.parametrize("places", [1, 3, 99])
def test_full_training_costs_1_and_loses_nothing(table: Table, places: int) -> None:
    replay = run_replay(table, arrival_order(table, 0), None, places, 0)
    assert (replay.cost, replay.hypervolume, replay.lost, replay.completed) == (1.0, pytest.approx(1.0), 0, 7)


def test_a_stopped_trial_costs_what_it_trained(table: Table) -> None:
    class StopAtOnce:
        def on_result(self, *result: Any) -> Verdict:
            return "stop"

    replay = run_replay(table, arrival_order(table, 0), StopAtOnce(), 2, 0)
    assert replay.cost == pytest.approx(8 * 2 / (7 * 8 + 2))
    assert (replay.hypervolume, replay.lost, replay.completed) == (0.0, 3, 0)


def test_halving_keeps_the_front_for_less(table: Table) -> None:
    for seed in range(5):
        halving = ParetoHalving(8, rungs=(0.25, 0.5), keep_fraction=0.1, strata=1, stratum_fraction=0.1)
        replay = run_replay(table, arrival_order(table, seed), halving, 2, seed)
        assert replay.lost == 0
        assert replay.cost < 0.9


def test_a_replay_is_the_same_every_time(table: Table) -> None:
    def once(seed: int) -> Any:
        return run_replay(table, arrival_order(table, seed), ParetoHalving(8), 3, seed)

    assert [once(seed) for seed in range(4)] == [once(seed) for seed in range(4)]


def test_random_spends_at_least_its_cost_and_one_trial_more_at_most(table: Table) -> None:
    for cost in (0.01, 0.3, 0.9, 1.0):
        replay = random_at_cost(table, arrival_order(table, 1), cost)
        assert cost - 1e-9 <= replay.cost <= cost + 8 / 58 + 1e-9


def test_phases_run_one_precision_after_another(table: Table) -> None:
    precisions = [curve.config["precision"] for curve in arrival_order(table, 3, by_precision=True)]
    assert precisions == sorted(precisions)
    assert arrival_order(table, 3) != arrival_order(table, 4)


def test_configurations_are_spread_evenly() -> None:
    configs = configurations(56, ("bf16", "nf4"), (1e-4, 1e-2), seed=1)
    assert configs == configurations(56, ("bf16", "nf4"), (1e-4, 1e-2), seed=1)
    footprints = [(one.precision, one.target_set, one.rank) for one in configs]
    assert len(set(footprints)) == 2 * 2 * len(RANKS)
    assert all(footprints.count(one) == 2 for one in footprints)
    places = sorted(math.log(one.learning_rate / 1e-4) / math.log(100) for one in configs)
    assert all(n / 56 - 1e-3 <= place <= (n + 1) / 56 + 1e-3 for n, place in enumerate(places))


def test_a_searcher_comes_to_recorded_trials_and_to_none_twice(table: Table) -> None:
    found = search(table, "random", 6, seed=0)
    assert len(found) == len(set(found)) == 6
    assert found == search(table, "random", 6, seed=0)
    by_trial = {curve.trial_id: curve.config["precision"] for curve in table.curves}
    assert [by_trial[trial] for trial in found] == sorted(by_trial[trial] for trial in found)


def test_the_bench_prints_and_writes_its_table(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "replay.json"
    assert replay_bench([str(file), "--orders", "2", "--places", "2", "--out", str(out)]) == 0
    summaries = json.loads(out.read_text(encoding="utf-8"))["summaries"]
    methods = [one["method"].split(",")[0] for one in summaries]
    assert methods == ["full training", "pareto halving", "perplexity halving", "random"]
    assert summaries[0]["cost"] == 1.0
    assert "pareto halving" in capsys.readouterr().out
