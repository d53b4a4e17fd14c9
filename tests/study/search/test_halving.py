"""The halving against a brute-force reading of its rules, and what must hold whatever comes in."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.search.front_ranking import (
    Candidate,
    best_candidates,
    by_rank,
    exclusive_hypervolumes,
    memory_strata,
    non_dominated,
)
from study.search.halving import (
    Halving,
    ParetoHalving,
    PerplexityHalving,
    Result,
    highest_rung,
    replay,
    rung_steps,
)

VALUE = st.integers(0, 6).map(float)
FIELDS = st.lists(st.tuples(VALUE, VALUE), min_size=1, max_size=14).map(
    lambda pairs: [Candidate(f"c{number:02}", loss, memory) for number, (loss, memory) in enumerate(pairs)]
)
FRACTION = st.sampled_from([0.1, 0.25, 0.5, 1.0])


def dominates(one: Candidate, other: Candidate) -> bool:
    """No worse in both, better in one."""
    no_worse = one.loss <= other.loss and one.memory <= other.memory
    return no_worse and (one.loss < other.loss or one.memory < other.memory)


def brute_rank(one: Candidate, field: list[Candidate]) -> int:
    """0 for whom nobody dominates, else one more than the highest rank that dominates it."""
    return max((brute_rank(other, field) + 1 for other in field if dominates(other, one)), default=0)


def area(points: list[tuple[float, float]], corner: float) -> float:
    """The area that points cover below a corner, by counting the cells of their grid."""
    xs, ys = (sorted({*(point[axis] for point in points), corner}) for axis in (0, 1))
    return sum(
        (x2 - x1) * (y2 - y1)
        for x1, x2 in itertools.pairwise(xs)
        for y1, y2 in itertools.pairwise(ys)
        if any(x <= x1 and y <= y1 for x, y in points)
    )


# ranking


@given(FIELDS)
def test_ranks_are_brute_force(field: list[Candidate]) -> None:
    ranked = by_rank(field)
    assert sorted(one.key for one, _ in ranked) == sorted(one.key for one in field)
    assert all(rank == brute_rank(one, field) for one, rank in ranked)
    assert [rank for _, rank in ranked] == sorted(rank for _, rank in ranked)
    assert {one.key for one in non_dominated(field)} == {one.key for one in field if brute_rank(one, field) == 0}


@settings(max_examples=50)
@given(FIELDS)
def test_exclusive_hypervolume_is_what_is_lost_without_the_point(field: list[Candidate]) -> None:
    front = non_dominated(field)
    low = [min(one.loss for one in field), min(one.memory for one in field)]
    span = [max(one.loss for one in field) - low[0] or 1.0, max(one.memory for one in field) - low[1] or 1.0]
    points = [((one.loss - low[0]) / span[0], (one.memory - low[1]) / span[1]) for one in front]
    for index, gain in enumerate(exclusive_hypervolumes(front, field)):
        without = points[:index] + points[index + 1 :]
        lost = area(points, 1.1) - (area(without, 1.1) if without else 0.0)
        assert gain == pytest.approx(lost, abs=1e-9)


@given(FIELDS)
def test_within_a_rank_more_hypervolume_comes_first(field: list[Candidate]) -> None:
    ranked = by_rank(field)
    for rank in {rank for _, rank in ranked}:
        order = [one for one, of in ranked if of == rank]
        front = sorted(order, key=lambda one: (one.memory, one.loss, str(one.key)))
        gains = dict(zip([one.key for one in front], exclusive_hypervolumes(front, field), strict=True))
        assert [gains[one.key] for one in order] == sorted(gains.values(), reverse=True)


@given(FIELDS, st.integers(1, 5))
def test_strata_are_by_memory_of_like_size_and_never_part_equals(field: list[Candidate], count: int) -> None:
    strata = memory_strata(field, count)
    assert sorted(one.key for stratum in strata for one in stratum) == sorted(one.key for one in field)
    assert len(strata) <= count
    for below, above in itertools.pairwise(strata):
        assert max(one.memory for one in below) < min(one.memory for one in above)
    if len({one.memory for one in field}) == len(field):
        sizes = [len(stratum) for stratum in strata]
        assert max(sizes) - min(sizes) <= 1


# who goes on


@given(FIELDS, FRACTION, st.integers(1, 4), FRACTION)
def test_survivors_are_those_of_the_rules(
    field: list[Candidate], keep: float, strata: int, stratum_fraction: float
) -> None:
    kept = best_candidates(field, keep, strata, stratum_fraction)
    expected = {one.key for one in field if brute_rank(one, field) == 0}
    expected |= {one.key for one, _ in by_rank(field)[: math.ceil(keep * len(field))]}
    for stratum in memory_strata(field, strata):
        best = sorted(stratum, key=lambda one: (one.loss, one.memory, str(one.key)))
        expected |= {one.key for one in best[: math.ceil(stratum_fraction * len(stratum))]}
    expected.add(min(field, key=lambda one: (one.memory, one.loss)).key)
    expected.add(min(field, key=lambda one: (one.loss, one.memory)).key)
    assert kept == expected
    # and so, each without the others' help:
    assert min(field, key=lambda one: (one.memory, one.loss)).key in kept
    assert min(field, key=lambda one: (one.loss, one.memory)).key in kept
    assert len(kept) >= keep * len(field)
    for stratum in memory_strata(field, strata):
        assert sum(one.key in kept for one in stratum) >= stratum_fraction * len(stratum)


@given(FIELDS)
def test_a_stopped_configuration_is_dominated(field: list[Candidate]) -> None:
    kept = best_candidates(field, 0.1, 2, 0.1)
    for one in field:
        assert one.key in kept or any(dominates(other, one) for other in field)


def test_nobody_is_nobody() -> None:
    assert best_candidates([], 0.5, 3, 0.5) == set()


# a study


Trials = dict[str, tuple[float, list[float]]]  # memory, losses by step
SCHEDULE = (2, 4, 8, 12, 16)


@st.composite
def studies(draw: st.DrawFn) -> tuple[Trials, int]:
    """Up to ten trials with curves, and a seed for the order in which results arrive."""
    losses = st.lists(VALUE, min_size=len(SCHEDULE), max_size=len(SCHEDULE))
    entries = draw(st.lists(st.tuples(VALUE, losses), min_size=1, max_size=10))
    return {f"t{number}": entry for number, entry in enumerate(entries)}, draw(st.integers(0, 99))


def run(halving: Halving, trials: Trials, seed: int) -> tuple[list[Result], dict[str, int], dict[str, list[Result]]]:
    """Feeds results in a random order; answers all results, where each trial stopped, and what was known then."""
    generator = random.Random(seed)
    running = dict.fromkeys(trials, 0)
    told: list[Result] = []
    stopped: dict[str, int] = {}
    known: dict[str, list[Result]] = {}
    while running:
        trial = generator.choice(sorted(running))
        place = running[trial]
        memory, losses = trials[trial]
        told.append(Result(trial, SCHEDULE[place], losses[place], memory))
        verdict = halving.on_result(trial, SCHEDULE[place], losses[place], memory)
        running[trial] += 1
        if verdict == "stop":
            stopped[trial] = SCHEDULE[place]
            known[trial] = list(told)
        if verdict == "stop" or running[trial] == len(SCHEDULE):
            del running[trial]
    return told, stopped, known


def make() -> ParetoHalving:
    """Rungs at 2, 4 and 8 of 16 steps; little is kept."""
    return ParetoHalving(16, rungs=(0.125, 0.25, 0.5), keep_fraction=0.2, strata=2, stratum_fraction=0.2)


@settings(max_examples=30)
@given(studies())
def test_the_cheapest_and_the_best_so_far_at_a_rung_are_never_stopped(study: tuple[Trials, int]) -> None:
    _, stopped, known = run(make(), *study)
    for trial, step in stopped.items():
        fields = [[one for one in known[trial] if one.step == rung] for rung in (2, 4, 8) if rung <= step]
        own = [next(one for one in field if one.trial == trial) for field in fields]
        rivals = [one for one in fields[-1] if one.trial != trial]
        assert any(one.loss <= own[-1].loss for one in rivals)
        assert any(one.memory <= own[-1].memory for one in rivals)
        # and it is dominated at one of the rungs that it passed
        assert any(
            dominates(Candidate(0, rival.loss, rival.memory), Candidate(1, mine.loss, mine.memory))
            for field, mine in zip(fields, own, strict=True)
            for rival in field
        )


@settings(max_examples=30)
@given(studies())
def test_replaying_the_results_gives_the_same_state(study: tuple[Trials, int]) -> None:
    first = make()
    told, _, _ = run(first, *study)
    again, backwards = make(), make()
    replay(again, told)
    replay(backwards, reversed(told))  # a store's order is that of ends, not of results
    for trial, (memory, losses) in study[0].items():
        last = max(one.step for one in told if one.trial == trial)
        asked = (trial, last, losses[SCHEDULE.index(last)], memory)
        assert first.on_result(*asked) == again.on_result(*asked) == backwards.on_result(*asked)


@settings(max_examples=30)
@given(studies())
def test_whatever_the_order_front_members_throughout_are_never_stopped(study: tuple[Trials, int]) -> None:
    # Order decides how long others live, but nobody can stop a trial that is on the front at every rung.
    trials, seed = study
    always = set(trials)
    for place in range(3):
        field = [Candidate(trial, losses[place], memory) for trial, (memory, losses) in trials.items()]
        always &= {one.key for one in non_dominated(field)}
    _, stopped, _ = run(make(), trials, seed)
    assert not always & set(stopped)


@settings(max_examples=30)
@given(studies())
def test_in_lockstep_the_order_within_a_rung_does_not_matter(study: tuple[Trials, int]) -> None:
    # When all have come to a rung, a second question gives each the verdict of the whole field.
    trials, seed = study
    order = sorted(trials)
    random.Random(seed).shuffle(order)
    answers = []
    for arrival in (sorted(trials), order):
        halving = make()
        for _ in range(2):
            verdicts = {trial: halving.on_result(trial, 2, trials[trial][1][0], trials[trial][0]) for trial in arrival}
        answers.append(verdicts)
    assert answers[0] == answers[1]


def test_a_cheap_configuration_survives_where_the_best_losses_are_expensive() -> None:
    # Rank 8 q/v learns more slowly than rank 64 everywhere, and is what a small card can hold.
    trials: Trials = {f"big{n}": (100.0 + n, [5.0 - 0.1 * n] * 5) for n in range(10)}
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


def test_a_trial_without_known_memory_goes_on_and_judges_nobody() -> None:
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


# plain halving


@settings(max_examples=50)
@given(st.lists(st.integers(0, 40).map(float), min_size=1, max_size=20, unique=True), FRACTION)
def test_plain_halving_keeps_the_best_of_those_before(losses: list[float], keep: float) -> None:
    halving = PerplexityHalving(16, (0.5,), keep)
    for number, loss in enumerate(losses):
        rank = sorted(losses[: number + 1]).index(loss) + 1
        expected = "continue" if rank <= math.ceil(keep * (number + 1)) else "stop"
        assert halving.on_result(f"t{number}", 8, loss, 1.0) == expected
        assert halving.on_result(f"t{number}", 9, 99.0 - loss, 1.0) == expected  # judged once a rung


# settings


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
