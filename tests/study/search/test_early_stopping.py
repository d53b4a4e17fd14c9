"""The truncation rule against a brute-force reading of it, and single cases of both halvings."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.search.early_stopping import (
    Halving,
    ParetoHalving,
    PerplexityHalving,
    highest_rung,
    rung_steps,
)
from study.search.front_ranking import Contender, by_rank, memory_strata
from tests.support.search.contenders import FIELDS, brute_rank, dominates

FRACTION = st.sampled_from([0.1, 0.25, 0.5, 1.0])


def truncation(keep_fraction: float, strata: int, stratum_fraction: float) -> ParetoHalving:
    return ParetoHalving(16, keep_fraction=keep_fraction, strata=strata, stratum_fraction=stratum_fraction)


@given(FIELDS, FRACTION, st.integers(1, 4), FRACTION)
def test_survivors_are_those_of_the_rules(
    field: list[Contender], keep: float, strata: int, stratum_fraction: float
) -> None:
    kept = truncation(keep, strata, stratum_fraction).survivors(field)
    expected = {one.key for one in field if brute_rank(one, field) == 0}
    expected |= {one.key for one, _ in by_rank(field)[: math.ceil(keep * len(field))]}
    for stratum in memory_strata(field, strata):
        best = sorted(stratum, key=lambda one: (one.loss, one.memory, str(one.key)))
        expected |= {one.key for one in best[: math.ceil(stratum_fraction * len(stratum))]}
    expected.add(min(field, key=lambda one: (one.memory, one.loss)).key)
    expected.add(min(field, key=lambda one: (one.loss, one.memory)).key)
    assert kept == expected
    # and each rule alone:
    assert min(field, key=lambda one: (one.memory, one.loss)).key in kept
    assert min(field, key=lambda one: (one.loss, one.memory)).key in kept
    assert len(kept) >= keep * len(field)
    for stratum in memory_strata(field, strata):
        assert sum(one.key in kept for one in stratum) >= stratum_fraction * len(stratum)


@given(FIELDS)
def test_a_stopped_configuration_is_dominated(field: list[Contender]) -> None:
    kept = truncation(0.1, 2, 0.1).survivors(field)
    for one in field:
        assert one.key in kept or any(dominates(other, one) for other in field)


def test_of_an_empty_field_nobody_survives() -> None:
    assert truncation(0.5, 3, 0.5).survivors([]) == set()


def make() -> ParetoHalving:
    """Rungs at 2, 4 and 8 of 16 steps; little is kept."""
    return ParetoHalving(16, rungs=(0.125, 0.25, 0.5), keep_fraction=0.2, strata=2, stratum_fraction=0.2)


def test_a_cheap_configuration_survives_where_the_best_losses_are_expensive() -> None:
    # Rank 8 q/v learns more slowly than rank 64 everywhere, and is what a small card can hold.
    trials = {f"big{n}": (100.0 + n, [5.0 - 0.1 * n] * 5) for n in range(10)}
    trials |= {f"small{n}": (10.0 + n, [9.0 + n] * 5) for n in range(4)}
    pareto, plain = make(), PerplexityHalving(16, (0.125, 0.25, 0.5), keep_fraction=0.2)
    verdicts: dict[str, dict[str, str]] = {"pareto": {}, "plain": {}}
    for trial, (memory, losses) in sorted(trials.items()):
        verdicts["pareto"][trial] = pareto.on_result(trial, 2, losses[0], memory)
        verdicts["plain"][trial] = plain.on_result(trial, 2, losses[0], memory)
    assert verdicts["pareto"]["small0"] == "continue"
    assert all(verdicts["plain"][f"small{n}"] == "stop" for n in range(4))
    assert all(verdicts["pareto"][f"small{n}"] == "stop" for n in (1, 2, 3))  # small0 is cheaper and better


def test_a_trial_is_judged_again_as_its_rung_fills() -> None:
    halving = ParetoHalving(16, rungs=(0.125,), keep_fraction=0.1, strata=1, stratum_fraction=0.1)
    assert halving.on_result("early", 2, 9.0, 5.0) == "continue"  # alone there
    assert halving.on_result("cheap", 2, 9.5, 1.0) == "continue"
    assert halving.on_result("better", 2, 3.0, 4.0) == "continue"
    assert halving.on_result("early", 4, 2.9, 5.0) == "stop"  # by what it had at the rung
    assert halving.on_result("early", 5, 2.9, 5.0) == "stop"


def test_a_slow_starter_that_leads_is_not_stopped_by_what_it_was() -> None:
    halving = ParetoHalving(16, rungs=(0.125, 0.25), keep_fraction=0.1, strata=1, stratum_fraction=0.1)
    for step, loss in ((2, 9.0), (4, 2.0)):
        assert halving.on_result("slow starter", step, loss, 5.0) == "continue"
    halving.on_result("quick", 2, 3.0, 4.0)
    assert halving.on_result("slow starter", 5, 1.9, 5.0) == "continue"  # the best at rung 4, so far
    halving.on_result("quick", 4, 1.5, 4.0)
    assert halving.on_result("slow starter", 6, 1.8, 5.0) == "stop"


def test_a_configuration_must_hold_at_all_rungs_that_it_passed() -> None:
    halving = ParetoHalving(16, rungs=(0.125, 0.25), keep_fraction=0.1, strata=1, stratum_fraction=0.1)
    for trial, memory in (("a", 5.0), ("b", 6.0), ("c", 7.0)):
        halving.on_result(trial, 2, 12.0 - memory, memory)
        assert halving.on_result(trial, 4, 12.0 - memory, memory) == "continue"
    halving.on_result("late", 2, 1.0, 5.5)
    assert halving.on_result("b", 5, 5.0, 6.0) == "stop"  # on the front at rung 4, and dominated by now at rung 2
    assert halving.on_result("c", 5, 4.0, 7.0) == "continue"  # the least loss at rung 4


def test_seeds_of_a_configuration_count_together() -> None:
    halving = ParetoHalving(16, rungs=(0.125,), keep_fraction=0.1, strata=1, stratum_fraction=0.1)
    halving.on_result("a0", 2, 4.0, 5.0, "a")
    halving.on_result("a1", 2, 6.0, 5.0, "a")  # a: 5.0 in the mean
    assert halving.on_result("b0", 2, 4.5, 5.0, "b") == "continue"
    assert halving.on_result("a0", 4, 4.0, 5.0, "a") == "stop"  # though this seed alone is better than b
    # Twelve seeds of one configuration are one place in the field, not twelve.
    halving = ParetoHalving(16, rungs=(0.125,), keep_fraction=0.5, strata=1, stratum_fraction=0.1)
    for seed in range(12):
        halving.on_result(f"a{seed}", 2, 9.0, 9.0, "a")
    halving.on_result("b", 2, 1.0, 1.0, "b")
    assert halving.on_result("c", 2, 2.0, 2.0, "c") == "continue"  # two of three are kept: b and c
    assert halving.on_result("a0", 4, 9.0, 9.0, "a") == "stop"


def test_a_trial_without_known_memory_continues_and_judges_nobody() -> None:
    halving = make()
    assert halving.on_result("unknown", 2, 50.0, None) == "continue"
    for number in range(6):
        halving.on_result(f"t{number}", 2, 1.0 + number, 1.0 + number)
    assert halving.on_result("unknown", 3, 50.0, None) == "continue"
    assert halving.on_result("unknown", 3, 50.0, 99.0) == "stop"  # now it is known


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_at_a_rung(loss: float) -> None:
    for halving in (make(), PerplexityHalving(16, (0.125, 0.25))):
        assert halving.on_result("t", 1, loss, 1.0) == "continue"
        assert halving.on_result("t", 2, loss, 1.0) == "stop"
        assert halving.on_result("fine", 2, 1e9, 1e9) == "continue"  # nothing of it counts


def test_grace_moves_early_rungs_to_its_end() -> None:
    halving = ParetoHalving(100, rungs=(0.05, 0.1, 0.5), keep_fraction=0.1, grace_steps=20, strata=1)
    assert halving.rungs == (20, 50)
    halving.on_result("good", 10, 1.0, 1.0)
    halving.on_result("good", 20, 1.0, 1.0)
    assert halving.on_result("bad", 19, 9.0, 9.0) == "continue"
    assert halving.on_result("bad", 20, 9.0, 9.0) == "stop"


def test_a_sparse_reporter_is_judged_at_the_rung_it_has_passed() -> None:
    # Its first result after rung 2 comes at step 4, which is rung 4: it says nothing of rung 2.
    halving = ParetoHalving(16, rungs=(0.125, 0.25), keep_fraction=0.1, strata=1, stratum_fraction=0.1)
    halving.on_result("sparse", 5, 1.0, 1.0)
    assert halving.on_result("slow", 3, 7.0, 7.0) == "continue"
    assert halving.on_result("slow", 4, 6.0, 7.0) == "stop"


def test_the_last_write_of_a_step_wins() -> None:
    halving = ParetoHalving(16, rungs=(0.125,), keep_fraction=0.1, strata=1, stratum_fraction=0.1)
    halving.on_result("a", 2, 9.0, 5.0)
    halving.on_result("b", 2, 5.0, 5.0)
    assert halving.on_result("a", 2, 4.0, 5.0) == "continue"
    assert halving.on_result("b", 4, 1.0, 5.0) == "stop"


@settings(max_examples=50)
@given(st.lists(st.integers(0, 40).map(float), min_size=1, max_size=20, unique=True), FRACTION)
def test_plain_halving_keeps_the_best_of_those_before(losses: list[float], keep: float) -> None:
    halving = PerplexityHalving(16, (0.5,), keep)
    for number, loss in enumerate(losses):
        rank = sorted(losses[: number + 1]).index(loss) + 1
        expected = "continue" if rank <= math.ceil(keep * (number + 1)) else "stop"
        assert halving.on_result(f"t{number}", 8, loss, 1.0) == expected
        assert halving.on_result(f"t{number}", 9, 99.0 - loss, 1.0) == expected  # judged once a rung


def test_rungs_are_steps_of_the_budget() -> None:
    assert rung_steps(28, (1 / 16, 1 / 8, 1 / 4, 1 / 2), 0) == (2, 4, 7, 14)
    assert rung_steps(4, (1 / 16, 1 / 8, 1 / 4, 1 / 2), 0) == (1, 2)
    assert rung_steps(1, (0.5,), 0) == ()
    assert rung_steps(10, (0.5,), 99) == ()
    assert [highest_rung((2, 4), step) for step in (1, 2, 3, 4, 99)] == [None, 2, 2, 4, 4]


@pytest.mark.parametrize(
    "broken",
    [
        lambda: ParetoHalving(0),
        lambda: ParetoHalving(16, rungs=()),
        lambda: ParetoHalving(16, rungs=(0.5, 0.25)),
        lambda: ParetoHalving(16, rungs=(0.5, 0.5)),
        lambda: ParetoHalving(16, rungs=(0.0, 0.5)),
        lambda: ParetoHalving(16, rungs=(0.5, 1.0)),
        lambda: ParetoHalving(16, rungs=(math.nan,)),
        lambda: ParetoHalving(16, keep_fraction=0.0),
        lambda: ParetoHalving(16, keep_fraction=1.1),
        lambda: ParetoHalving(16, strata=0),
        lambda: ParetoHalving(16, stratum_fraction=math.nan),
        lambda: ParetoHalving(16, grace_steps=-1),
        lambda: PerplexityHalving(16, keep_fraction=-0.5),
    ],
)
def test_wrong_settings_are_refused(broken: Callable[[], Halving]) -> None:
    with pytest.raises(ValueError, match="must be"):
        broken()
